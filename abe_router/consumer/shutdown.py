"""How a consumer stops."""

from __future__ import annotations

import asyncio
import time
from math import inf

#: How long the outcomes of a consumer that stops are sent again while the backend is unavailable, in seconds.
SHUTDOWN_GRACE = 5.0


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
