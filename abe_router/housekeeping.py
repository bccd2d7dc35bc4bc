"""Keeping the backend small while a table runs: what is settled and old enough is removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from abe_router.backend import Backend
from abe_router.errors import BackendError

_log = logging.getLogger(__name__)

#: When the backend is trimmed for the first time, and how long it then rests each time, in seconds.
FIRST, EVERY = 3.0, 10.0


class Housekeeping:
    """Trims a backend now and then, from the first `follow` until `stop`."""

    def __init__(self, backend: Backend, *, first: float = FIRST, every: float = EVERY) -> None:
        self._backend, self._first, self._every = backend, first, every
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
        await asyncio.sleep(self._first)
        while True:
            try:
                while removed := await self._backend.trim(self._retain):
                    _log.debug("removed %d settled messages", removed)
                    await asyncio.sleep(0)
            except BackendError as error:
                _log.debug("settled messages are removed later: %s", error)
            except Exception:  # noqa: BLE001  a provider's fault here must not end it, nor anything else
                _log.debug("settled messages are removed later", exc_info=True)
            await asyncio.sleep(self._every)
