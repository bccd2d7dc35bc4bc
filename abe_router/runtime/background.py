"""Background tasks: work such as the heartbeat, whose failure must not end the router."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from abe_router.backoff import Backoff, LogThrottle
from abe_router.text import format_duration

_log = logging.getLogger(__name__)

#: Delay before a failed task is started again, in seconds: the first, and the longest.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0


class BackgroundTasks:
    """Runs tasks that observe the router, from `start` until `stop`.

    A task that raises is logged with its traceback and started again with backoff. While it keeps failing,
    only some of its errors are logged. It affects neither the router nor the other tasks. A task that
    returns is done.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` in a task; `name` names it in the log."""
        self._tasks.add(asyncio.create_task(self._run(name, work), name=name))

    async def stop(self) -> None:
        """Cancel the tasks, and wait until they have ended. Idempotent."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
        throttle, failing_since = LogThrottle(), 0.0
        while True:
            began = time.monotonic()
            try:
                await work()
                return
            except Exception as error:  # noqa: BLE001  observing must not end the router
                now = time.monotonic()
                if not failing_since or now - began > backoff.longest:  # it ran well in between
                    backoff.reset()
                    throttle, failing_since = LogThrottle(), now
                delay = backoff.next()
                if throttle.is_due(now - failing_since):
                    _log.error("%s failed, next try in %s", name, format_duration(delay), exc_info=error)
            await asyncio.sleep(delay)
