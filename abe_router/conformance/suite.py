"""The description of a provider for the suite, and the environment of each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import TypeVar
from unittest import SkipTest

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.conformance.harness import Harness

#: Whether the tests that measure growth do so on a million messages.
LONGER = os.environ.get("ABE_ROUTER_LONGER", "0") != "0"


class Suite:
    """The settings of the suite; a subclass overrides what differs.

    Either `url` or `make_backend` is needed. Times are in seconds. `lease` is the lease of tests in which one
    ends: as short as the provider keeps it without strain. Within a `pause` a call surely waits, and what is
    ready surely comes. `patience` is the most that a test takes. `backlog` is the number of messages in tests
    which measure that a call does not depend on it, and `entries` the number of entries of a bucket there.
    """

    url: str = ""
    lease: float = 0.3
    pause: float = 0.05
    patience: float = 900.0 if LONGER else 30.0
    backlog: int = 1_000_000 if LONGER else 20_000
    entries: int = 10_000

    def make_backend(self, prefix: str) -> Backend:
        """Return a backend, not yet open, on a prefix.

        A prefix that was not used before is empty. The same prefix has the same content, as far as the
        features of the provider declare it durable or shared.
        """
        return make_backend(self.url, prefix=prefix)

    def snapshot(self) -> object:
        """Return what the provider has stored, byte for byte, to be compared; None when that is unknown.

        A test calls it before and after calls that may change nothing.
        """
        return None

    def stop_server(self) -> None:
        """Kill the server of the backend, without warning; what it wrote to disk stays."""
        raise SkipTest("the suite does not know how to stop the server")

    def start_server(self) -> None:
        """Start the server again, on the same address and the same data; return when it answers."""
        raise NotImplementedError


S = TypeVar("S", bound=Suite)


def check(
    *needs: str, measures_time: bool = False
) -> Callable[[Callable[[S, Harness], Awaitable[None]]], Callable[[S], None]]:
    """Make a plain test of a coroutine function that takes a fresh harness.

    It runs in an event loop of its own, so no pytest plugin is needed. It is skipped when the provider lacks
    one of the features it `needs`, and fails when a task still runs once every backend is closed. A test that
    `measures_time` has an attribute of that name; run it while nothing else runs.
    """

    def decorate(test: Callable[[S, Harness], Awaitable[None]]) -> Callable[[S], None]:
        def run(self: S) -> None:
            asyncio.run(_run(self, test, needs))

        update_wrapper(run, test)
        del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look for a fixture `harness`
        run.measures_time = measures_time  # type: ignore[attr-defined]
        return run

    return decorate


async def _run(suite: S, test: Callable[[S, Harness], Awaitable[None]], needs: tuple[str, ...]) -> None:
    harness = Harness(suite.make_backend, suite.pause)
    lacking = [name for name in needs if not getattr(harness.features, name)]
    if lacking:
        raise SkipTest(f"the provider does not declare: {', '.join(lacking)}")
    limit = asyncio.timeout(suite.patience)
    try:
        async with limit:
            await test(suite, harness)
    except TimeoutError as error:
        if limit.expired():
            raise AssertionError(f"the test did not end within {suite.patience} s") from error
        raise
    finally:
        await harness.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"closed, but still running: {left}"
