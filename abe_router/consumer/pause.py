"""Waits between attempts to reach a backend."""

from __future__ import annotations

import asyncio
import random

#: Wait after a backend error, in seconds: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Pause:
    """Waits that double from the first to the longest, each shortened by up to half at random."""

    def __init__(self) -> None:
        self._longest = FIRST_PAUSE

    def next(self) -> float:
        """Return the length of the next wait, in seconds."""
        length = self._longest * random.uniform(0.5, 1.0)  # noqa: S311  to spread the load, not to hide
        self._longest = min(LONGEST_PAUSE, self._longest * 2)
        return length


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most `seconds`; say whether it is."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
