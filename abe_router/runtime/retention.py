"""Retention: removes settled messages from the backend, once they are old enough, while a table runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from abe_router.backend import Backend
from abe_router.errors import BackendError

_log = logging.getLogger(__name__)

#: Delay before the first trim, and the longest pause between two trims, in seconds.
FIRST, EVERY = 3.0, 10.0
#: How many messages one trim should remove. After one that removed more, the next comes sooner.
PORTION = 5_000


class RetentionLoop:
    """Trims a backend periodically, from the first `follow` until `stop`.

    It pauses at least as long as a trim takes. The more a trim removes, the sooner the next one comes, so
    that it keeps up with the consumers. `rest` and `clock` are for tests.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        first: float = FIRST,
        every: float = EVERY,
        rest: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._first, self._every = backend, first, every
        self._rest, self._clock = rest, clock
        self._retain: Mapping[str, float] = {}
        self._running: asyncio.Task[None] | None = None

    def follow(self, retain: Mapping[str, float]) -> None:
        """From now on, keep settled messages for these times, in seconds by key or pattern."""
        self._retain = retain
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, at the latest after the current piece of a trim. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def _run(self) -> None:
        # Other processes on the backend learn the retention times of this one from its first trim.
        pause = 0.0 if self._retain else self._first
        last = self._clock()
        while True:
            await self._rest(pause)
            began = self._clock()
            removed = await self._trim()
            pause = self._pause(removed, began - last, self._clock() - began)
            last = began

    def _pause(self, removed: int, since: float, worked: float) -> float:
        """Return the pause, in seconds, after a trim whose messages were settled within `since` seconds."""
        if not removed:
            return self._every
        return max(worked, min(self._every, since * PORTION / removed))

    async def _trim(self) -> int:
        try:
            removed = await self._backend.trim(self._retain)
        except BackendError as error:
            _log.debug("trim failed, next try later: %s", error)
            return 0
        except Exception:  # noqa: BLE001  an error of a provider must not end retention
            _log.debug("trim failed, next try later", exc_info=True)
            return 0
        _log.debug("removed %d settled messages", removed)
        return removed
