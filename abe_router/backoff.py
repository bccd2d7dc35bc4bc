"""Backoff between attempts, and the throttle of the log lines that report a failure that lasts."""

from __future__ import annotations

import asyncio
import random
import time


class Backoff:
    """Delays that grow from `first` to `longest`, in seconds.

    Each is shortened by up to half at random, so that many clients of one server do not return together
    ("equal jitter" in the AWS Architecture Blog, "Exponential Backoff And Jitter", 2015). With
    `jitter=False` the delays are exact.
    """

    def __init__(
        self, first: float = 0.1, longest: float = 1.0, *, factor: float = 2.0, jitter: bool = True
    ) -> None:
        self.first, self.longest = first, longest
        self._factor, self._jitter = factor, jitter
        self._upper = first

    def next(self) -> float:
        """Return the next delay, in seconds, and let the one after it be longer."""
        upper = self._upper
        self._upper = min(self.longest, upper * self._factor)
        return upper * random.uniform(0.5, 1.0) if self._jitter else upper  # noqa: S311  spreads the load

    def reset(self) -> None:
        """Begin again with the first delay."""
        self._upper = self.first


class LogThrottle:
    """Decides when a failure that lasts is logged: at once, then after intervals that double.

    `first` and `longest` are the shortest and the longest interval, in seconds.
    """

    def __init__(self, first: float = 10.0, longest: float = 600.0) -> None:
        self._longest = longest
        self._until, self._next = 0.0, first

    def is_due(self, seconds: float) -> bool:
        """Say whether to log a failure that has lasted for `seconds`; if so, begin the next interval."""
        if seconds < self._until:
            return False
        self._until = seconds + self._next
        self._next = min(self._longest, self._next * 2)
        return True


class Outage:
    """Failures without a success in between: how long they last, and when LogThrottle logs them."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._throttle = LogThrottle()

    def __bool__(self) -> bool:
        return self._began_at is not None

    def fail(self, quiet: float = 0.0) -> bool:
        """Note a failure; return whether to log it: failures of less than `quiet` seconds are not logged."""
        now = time.monotonic()
        if self._began_at is None:
            self._began_at, self._throttle = now, LogThrottle()
        lasted = now - self._began_at
        return lasted >= quiet and self._throttle.is_due(lasted)

    def end(self) -> float | None:
        """Note a success; return how long the failures lasted, in seconds, None if there was none."""
        began_at, self._began_at = self._began_at, None
        return None if began_at is None else time.monotonic() - began_at


async def wait_for_event(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait until the event is set, at most `seconds`, or without limit; say whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
