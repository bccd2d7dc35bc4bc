"""Runs the command line in this process, in a temporary folder with a small shop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from abe_router.backend import Backend, Dead, DeadLetter, Reason
from abe_router.backends import make_backend
from abe_router.cli.root import run as run_command
from abe_router.messages.message import encode, new_message

ROUTES = """\
backend: sqlite:///shop.db
schemas: schemas
routes:
  orders.created:
    schema: order.json
    consumers:
      billing: shop_handlers:charge
      audit:
        handler: shop_handlers:charge
        concurrency: 2
        when: {properties: {total: {minimum: 100}}}
  orders.#:
    consumers: {trail: "shop_handlers:charge"}
  payments.settled: {}
"""
ORDER = {
    "type": "object",
    "required": ["id", "total"],
    "properties": {"id": {"type": "integer"}, "total": {"type": "number", "minimum": 0}},
}
HANDLERS = """\
from abe_router.errors import Reject

def charge(order):
    if order["total"] == 0:
        raise Reject("nothing to charge")
    print("charged", order["id"], flush=True)
"""


@dataclass(frozen=True)
class Result:
    """The exit code of a command and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


Run = Callable[..., Result]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "order.json").write_bytes(msgspec.json.encode(ORDER))
    (tmp_path / "shop_handlers.py").write_text(HANDLERS)
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "ABE_ROUTER_DEBUG", "ABE_ROUTER_CONFIG", "ABE_ROUTER_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def run(shop: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> Result:
        capsys.readouterr()
        code = run_command(args)
        return Result(code, *capsys.readouterr())

    return run


def on_backend(act: Callable[[Backend], Awaitable[Any]], url: str = "sqlite:///shop.db") -> Any:
    """Call `act` with the shop's backend, and return its result."""

    async def inside() -> Any:
        backend = make_backend(url)
        await backend.open()
        try:
            return await act(backend)
        finally:
            await backend.close()

    return asyncio.run(inside())


def published(pattern: str = "orders.created", group: str = "probe") -> list[Any]:
    """Return the messages that a new group on the shop's backend receives."""

    async def read(backend: Backend) -> list[Any]:
        subscription = await backend.subscribe(pattern, group)
        found = [delivery.message for delivery in await subscription.fetch(1000, 0.2)]
        await subscription.close()
        return found

    return on_backend(read)


def dead_letter(*payloads: Any, route: str = "orders.created/billing") -> None:
    """Publish payloads and move them among the dead letters of a route."""

    async def act(backend: Backend) -> None:
        pattern, group = route.split("/")
        subscription = await backend.subscribe(pattern, group)
        await backend.append(
            [new_message(pattern, encode(payload), headers={"source": "test"}) for payload in payloads]
        )
        reason = Reason("rejected", "Reject", "nothing to charge", traceback="Traceback: Reject")
        left = len(payloads)
        while left:
            deliveries = await subscription.fetch(500, 5)
            outcomes = [
                Dead(DeadLetter(route, d.message, reason, 1, d.deliveries, 1e9, 1.1e9)) for d in deliveries
            ]
            await subscription.settle(list(zip(deliveries, outcomes, strict=True)))
            left -= len(deliveries)
        await subscription.close()

    on_backend(act)
