"""Waits between attempts to reach a backend, and between words about it."""

from __future__ import annotations

import asyncio
import random

#: Wait after a backend error, in seconds: the first, and the longest, which is also how long it may go
#: unnoticed that the backend is back.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
#: Silence after a word about an outage, in seconds: the first, and the longest.
FIRST_SILENCE, LONGEST_SILENCE = 10.0, 600.0


class Pause:
    """Waits that double from the first to the longest, each shortened by up to half at random."""

    def __init__(self) -> None:
        self._longest = FIRST_PAUSE

    def next(self) -> float:
        """Return the length of the next wait, in seconds."""
        length = self._longest * random.uniform(0.5, 1.0)  # noqa: S311  to spread the load, not to hide
        self._longest = min(LONGEST_PAUSE, self._longest * 2)
        return length


class Silence:
    """When an outage is told again: at once, and then after silences that double."""

    def __init__(self) -> None:
        self._until, self._next = 0.0, FIRST_SILENCE

    def over(self, seconds: float) -> bool:
        """Say whether to tell of an outage that has lasted for `seconds`; if so, another silence begins."""
        if seconds < self._until:
            return False
        self._until = seconds + self._next
        self._next = min(LONGEST_SILENCE, self._next * 2)
        return True


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most `seconds`; say whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
