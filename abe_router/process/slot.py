"""The place of one worker: as soon as it is empty, the next one is started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from abe_router.process.channel import STOP
from abe_router.process.child import Child, reason
from abe_router.text import format_duration

_log = logging.getLogger("abe_router")

#: Wait before a worker that ended is replaced, in seconds: the first, which doubles, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
#: After a worker that lasted longer than this, in seconds, the first wait is enough again.
LASTED = 60.0
#: How long a worker with new code may take until its routes run, in seconds.
PATIENCE = 60.0


class Place:
    """Keeps one worker running.

    `start` starts one, or raises OSError. With `once` a worker that ends by itself, having found nothing
    more to do, is not replaced. Once `stopping` is set none is.
    """

    def __init__(
        self, start: Callable[[], Awaitable[Child]], stopping: asyncio.Event, *, once: bool = False
    ) -> None:
        self._start, self._stopping, self._once = start, stopping, once
        self._turn = asyncio.Lock()
        self._pause = FIRST_PAUSE
        self._child: Child | None = None
        self._code: frozenset[Path] = frozenset()

    @property
    def code(self) -> frozenset[Path]:
        """The files that the handlers of its worker are made of, or of the last that ran."""
        if self._child is not None and self._child.has_run:
            self._code = self._child.code
        return self._code

    async def fill(self) -> Child | None:
        """Start a worker if the place is empty; return the one that is there, None if stopped before."""
        async with self._turn:
            while self._child is None or (self._child.is_over and not self._stopping.is_set()):
                try:
                    self._child = await self._start()
                except OSError as error:
                    _log.error("a worker cannot be started, next try in %s: %s", self._shown_pause, error)
                    await self._wait()
                    if self._stopping.is_set():
                        return self._child
            return self._child

    async def keep(self) -> int:
        """Start another worker whenever one has ended, until stopped.

        Return the exit code of the one that was there then, 0 when there was none.
        """
        while True:
            child = await self.fill()
            if child is None:
                return 0
            code = await child.ended()
            if self._child is not child:  # it made room for one with new code
                continue
            if self._stopping.is_set() or (self._once and code in (0, 1)):
                return code
            if child.age > LASTED:
                self._pause = FIRST_PAUSE
            level = logging.INFO if code == 0 else logging.ERROR
            _log.log(level, "%s %s, another starts in %s", child, reason(code), self._shown_pause)
            await self._wait()
            if self._stopping.is_set() and self._child is child:
                return 0  # the place is empty: there is nobody whose drain could have failed

    async def replace(self) -> bool:
        """Start a worker, and stop the one before as soon as the routes of the new one run.

        Return False when they never did; the one before goes on then.
        """
        async with self._turn:
            try:
                old, new = self._child, await self._start()
            except OSError as error:
                _log.error("a worker with the new code cannot be started: %s", error)
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await new.settled.wait()
            if not new.has_run:
                new.kill()
                code = await new.ended()
                if not self._stopping.is_set():
                    _log.error("%s, with the new code, %s before its routes ran", new, reason(code))
                return False
            self._child, self._pause = new, FIRST_PAUSE
        if old is not None:
            old.order(STOP)
            await old.ended()
        return True

    @property
    def _shown_pause(self) -> str:
        return format_duration(self._pause)

    async def _wait(self) -> None:
        """Wait before the next worker, and the next time for longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await self._stopping.wait()
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
