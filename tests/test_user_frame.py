"""The frame and the type of an error, which say where a handler failed."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abe_router.errors import Reject, first_cause, type_name, user_frame

SHOP = """
import json

class OutOfStock(Exception):
    class Soon(Exception):
        pass

class Shop:
    def charge(self, order):
        return self._total(order)

    def _total(self, order):
        return sum([item["price"] for item in order["items"]])

def parse(text):
    return json.loads(text)

def reject(order):
    raise OutOfStock.Soon("no stock")
"""


def loaded(name: str, path: str, source: str = SHOP) -> types.ModuleType:
    """Return a module as if it were imported from `path`."""
    module = types.ModuleType(name)
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def raised(function: Callable[..., Any], *arguments: Any) -> Exception:
    with pytest.raises(Exception) as info:
        function(*arguments)
    error = info.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # without the frame of this function
    return error


def test_frame_is_the_innermost_one_of_the_user() -> None:
    shop = loaded("examples.shop", "/srv/shop.py")
    assert user_frame(raised(shop.Shop().charge, {"items": [{}]})) == "examples.shop:Shop._total"
    assert user_frame(raised(shop.parse, "{")) == "examples.shop:parse"
    assert user_frame(raised(json.loads, "{")) == ""


def test_reformatted_file_has_the_same_frame() -> None:
    shop, later = loaded("shop", "/srv/shop.py"), loaded("shop", "/srv/shop.py", "\n\n\n" + SHOP)
    errors = [raised(module.reject, {}) for module in (shop, later)]
    assert errors[0].__traceback__.tb_lineno != errors[1].__traceback__.tb_lineno
    assert {user_frame(error) for error in errors} == {"shop:reject"}


def test_installed_handler_counts_as_code_of_the_user() -> None:
    installed = str(Path("/venv/lib/python3/site-packages"))
    client = loaded("client", f"{installed}/client.py", "def get():\n    raise OSError")
    shop = loaded("shop.billing", f"{installed}/shop/billing.py", "def charge(client):\n    client.get()")
    assert user_frame(raised(shop.charge, client)) == "shop.billing:charge"


def test_error_of_a_group_is_its_first_one() -> None:
    shop = loaded("shop", "/srv/shop.py")

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(shop.parse, "{"))

    error = first_cause(raised(asyncio.run, both()))
    assert (type_name(error), user_frame(error)) == ("json.decoder.JSONDecodeError", "shop:parse")


def test_type_is_qualified_by_its_module() -> None:
    shop = loaded("shop", "/srv/shop.py")
    assert type_name(raised(shop.reject, {})) == "shop.OutOfStock.Soon"
    assert type_name(KeyError("id")) == "KeyError"
    assert type_name(Reject("no stock")) == "Reject"
