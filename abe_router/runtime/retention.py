"""Keeping the backend small while a table runs: what is settled and old enough is removed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from abe_router.backend import Backend
from abe_router.errors import BackendError

_log = logging.getLogger(__name__)

#: When the backend is trimmed for the first time, and how long it then rests at most, in seconds.
FIRST, EVERY = 3.0, 10.0
#: How many messages a trim is to remove: it comes as much sooner as the last one removed more.
PORTION = 5_000


class RetentionLoop:
    """Trims a backend now and then, from the first `follow` until `stop`.

    It rests at least as long as it works, and keeps up with what is settled: the more a trim removes, the
    sooner the next one comes. `rest` and `clock` are the event loop's, but for tests.
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
        """Keep, from now on, what is settled for so many seconds, by key or pattern."""
        self._retain = retain
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop, within a piece of the work. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait({running})

    async def _run(self) -> None:
        # Until it has trimmed once, other processes on the backend do not know what it wants kept.
        pause = 0.0 if self._retain else self._first
        last = self._clock()
        while True:
            await self._rest(pause)
            began = self._clock()
            removed = await self._trim()
            pause = self._pause(removed, began - last, self._clock() - began)
            last = began

    def _pause(self, removed: int, since: float, worked: float) -> float:
        """Return how long to rest after a trim that removed what had piled up in `since` seconds."""
        if not removed:
            return self._every
        return max(worked, min(self._every, since * PORTION / removed))

    async def _trim(self) -> int:
        try:
            removed = await self._backend.trim(self._retain)
        except BackendError as error:
            _log.debug("settled messages are removed later: %s", error)
            return 0
        except Exception:  # noqa: BLE001  a provider's fault here must not end it, nor anything else
            _log.debug("settled messages are removed later", exc_info=True)
            return 0
        _log.debug("removed %d settled messages", removed)
        return removed
