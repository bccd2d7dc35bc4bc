"""How a consumer stops, and what it repeats until then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from abe_router.backoff import Backoff, LogThrottle, wait_for_event
from abe_router.errors import BackendError
from abe_router.observe.events import BackendBack, BackendLost, Events

#: How long the outcomes of a consumer that stops are sent again while the backend is unavailable, in seconds.
SHUTDOWN_GRACE = 5.0

T = TypeVar("T")


class Shutdown:
    """Whether a consumer is to stop, how long its handlers may still run, and the error that ends it.

    `drain` is the time that running handlers get, in seconds, unless a request names another.
    """

    def __init__(self, drain: float) -> None:
        #: Set once a stop is requested.
        self.requested = asyncio.Event()
        self.error: Exception | None = None
        self._drain, self._requested_at = drain, inf

    def request(self, drain: float | None = None) -> None:
        """Stop; a first request sets the drain time, later ones can only shorten it.

        None leaves the drain time as it is.
        """
        if drain is not None:
            self._drain = min(self._drain, drain) if self.requested.is_set() else drain
        if not self.requested.is_set():
            self._requested_at = time.monotonic()
            self.requested.set()

    def fail(self, error: Exception) -> None:
        """Stop because a part of the consumer failed; the first error is the one that counts."""
        self.error = self.error or error
        self.request()

    @property
    def seconds(self) -> float:
        """How long ago the stop was requested, in seconds; 0 if it was not."""
        return max(0.0, time.monotonic() - self._requested_at)

    @property
    def seconds_left(self) -> float:
        """How long handlers may still run, in seconds; without limit while no stop is requested."""
        return self._requested_at + self._drain - time.monotonic()


class BackendCalls:
    """Repeats calls that meet a backend error; reports when the backend is lost and when it is back."""

    def __init__(self, route: str, events: Events, shutdown: Shutdown) -> None:
        self._route, self._events, self._shutdown = route, events, shutdown
        #: Whether the last call did not meet an error.
        self.connected = True
        #: Set once the first call came to an end, by an answer or by an error.
        self.tried = asyncio.Event()

    async def repeat(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `call` returns; None when a stop is requested before it does."""
        backoff, throttle, lost_at = Backoff(), LogThrottle(), 0.0
        while not self._shutdown.requested.is_set():
            try:
                result = await call()
            except BackendError as error:
                self.connected = False
                self.tried.set()
                lost_at = lost_at or time.monotonic()
                delay = backoff.next()
                if throttle.is_due(time.monotonic() - lost_at):
                    self._events.emit(BackendLost(self._route, str(error), delay))
                await wait_for_event(self._shutdown.requested, delay)
                continue
            if not self.tried.is_set():
                self.tried.set()
            if not self.connected:
                self.connected = True
                self._events.emit(BackendBack(self._route, time.monotonic() - lost_at))
            return result
        return None
