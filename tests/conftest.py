"""What holds for all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is for the machine to say, and for what else runs on it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# pytest compiles the tests and, because it has a plugin, the whole package. What this process keeps, the next
# ones load, also where PYTHONDONTWRITEBYTECODE is set. No test has written a module yet that it may change.
_keeps_no_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, False


def pytest_collection_finish() -> None:
    sys.dont_write_bytecode = _keeps_no_bytecode
    # The tests start pytest too. Its plugin of hypothesis takes longer to import than the rest of such a run.
    os.environ["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `serve` runs on uvloop or on asyncio."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if request.param == "asyncio":
        (hidden / "uvloop.py").write_text("raise ImportError")
    return {**os.environ, "PYTHONPATH": str(hidden)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(getattr(item, "function", None), "measures_time", False):
            item.add_marker(pytest.mark.alone)
