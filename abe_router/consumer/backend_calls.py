"""Calls of the backend that are repeated until it can be reached, and the end of its outages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from abe_router.backoff import Backoff, Outage, wait_for_event
from abe_router.consumer.shutdown import Shutdown
from abe_router.errors import BackendError
from abe_router.observe.events import BackendBack, BackendLost, Events

T = TypeVar("T")

#: How long an outage lasts before settler and lease keeper log it too, in seconds; the fetcher reports it at
#: once.
REPORT_AFTER = 5.0


class Recovery:
    """Wakes all that wait for the backend as soon as one call reaches it again.

    The consumers of a process share it. So an outage ends for all of their outcomes at once, before another
    process takes over what they hold.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, seconds: float) -> None:
        """Wait until the backend was reached again, at most `seconds`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._waiting.discard(waiter)

    def report(self) -> None:
        """Note that a call reached the backend after one that did not."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class BackendCalls:
    """Repeats calls that meet a backend error; reports when the backend is lost and when it is back."""

    def __init__(self, route: str, events: Events, shutdown: Shutdown, recovery: Recovery) -> None:
        self._route, self._events, self._shutdown = route, events, shutdown
        #: Shared with what else calls the backend.
        self.recovery = recovery
        self._outage = Outage()
        #: Set once the first call came to an end, by an answer or by an error.
        self.tried = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the last call did not meet an error."""
        return not self._outage

    async def repeat(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `call` returns; None when a stop is requested before it does."""
        backoff = Backoff()
        while not self._shutdown.requested.is_set():
            try:
                result = await call()
            except BackendError as error:
                self.tried.set()
                delay = backoff.next()
                if self._outage.fail():
                    self._events.emit(BackendLost(self._route, str(error), delay))
                await wait_for_event(self._shutdown.requested, delay)
                continue
            if not self.tried.is_set():
                self.tried.set()
            if (seconds := self._outage.end()) is not None:
                self._events.emit(BackendBack(self._route, seconds))
                self.recovery.report()
            return result
        return None
