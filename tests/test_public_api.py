"""The public names: complete, sorted, cheap to import and typed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import abe_router

ROOT = Path(__file__).parent.parent


def test_the_names_are_sorted_and_each_can_be_imported():
    assert abe_router.__all__ == sorted(abe_router.__all__)
    for name in abe_router.__all__:
        assert getattr(abe_router, name) is not None
        assert name in dir(abe_router)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        abe_router.Nothing  # noqa: B018


def test_stub_matches_the_module():
    tree = ast.parse((ROOT / "abe_router/__init__.pyi").read_text())
    imported = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (exported,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert imported == abe_router._HOMES
    assert exported == abe_router.__all__


def test_every_error_is_public():
    from abe_router import errors

    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }
    assert raised <= set(abe_router.__all__)


def imported(statement: str) -> set[str]:
    """Return what a fresh interpreter has imported after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_importing_the_package_imports_no_submodule():
    modules = imported("import abe_router")
    assert [name for name in modules if name.startswith("abe_router.")] == []
    assert "asyncio" not in modules


def test_importing_reject_does_not_import_the_router():
    assert imported("from abe_router import Reject").isdisjoint({"asyncio", "pydantic", "redis"})
