"""What a provider tells the suite about itself, and how each test is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import update_wrapper
from typing import TypeVar
from unittest import SkipTest

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.conformance.store import Store


class Suite:
    """The settings; a subclass overrides what differs.

    Either `url` or `make_backend` is needed. Times are in seconds: `lease` is that of tests which let one
    run out, as short as the provider keeps it without strain; in a `pause` a call has surely begun, and
    what is ready has surely come; `patience` is the most that a test takes.
    """

    url: str = ""
    lease: float = 0.3
    pause: float = 0.05
    patience: float = 30.0

    def make_backend(self, store: str) -> Backend:
        """Return a backend, not yet open, on the store of that name.

        A name that was not used before is an empty store; the same name is the same store, as far as the
        provider's features say that it is durable or shared.
        """
        return make_backend(self.url, prefix=store)

    def stop_server(self) -> None:
        """Kill the server behind the backend, without warning; what it wrote to disk stays."""
        raise SkipTest("the suite was not told how to stop the server")

    def start_server(self) -> None:
        """Start the server again, on the same address and the same data; return when it answers."""
        raise NotImplementedError


S = TypeVar("S", bound=Suite)


def check(*needs: str) -> Callable[[Callable[[S, Store], Awaitable[None]]], Callable[[S], None]]:
    """Make a plain test of a coroutine function that gets a fresh store.

    It runs in an event loop of its own, so no pytest plugin is needed. It is skipped when the provider
    lacks one of the features it `needs`, and fails when anything is left running once all is closed.
    """

    def decorate(test: Callable[[S, Store], Awaitable[None]]) -> Callable[[S], None]:
        def run(self: S) -> None:
            asyncio.run(_run(self, test, needs))

        update_wrapper(run, test)
        del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look for a fixture `store`
        return run

    return decorate


async def _run(suite: S, test: Callable[[S, Store], Awaitable[None]], needs: tuple[str, ...]) -> None:
    store = Store(suite.make_backend, suite.pause)
    lacking = [name for name in needs if not getattr(store.features, name)]
    if lacking:
        raise SkipTest(f"the provider does not declare: {', '.join(lacking)}")
    limit = asyncio.timeout(suite.patience)
    try:
        async with limit:
            await test(suite, store)
    except TimeoutError as error:
        if limit.expired():
            raise AssertionError(f"it did not end within {suite.patience} s") from error
        raise
    finally:
        await store.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"closed, but still running: {left}"
