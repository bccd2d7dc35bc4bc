"""SIGTERM and SIGINT, heard even while a handler blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

#: How long the process may take to end in good order after a second signal, in seconds.
GRACE = 1.0


class Signals:
    """Inside, the first signal calls `stop`, and each one after it `force` with its number, in the loop.

    A handler that blocks the loop, or takes no cancellation, cannot hold up an exit that is forced: the
    process ends after GRACE with 128 plus the signal's number, as a shell says it. Without `force`, whoever
    started the process sees to that. Only for the main thread, which alone hears signals.
    """

    def __init__(self, stop: Callable[[], None], force: Callable[[int], None] | None) -> None:
        self._stop, self._force = stop, force
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the loop's own `add_signal_handler`: what that calls waits for the loop.
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop)
        elif self._force is not None:
            self._loop.call_soon_threadsafe(self._force, number)
            end = threading.Timer(GRACE, os._exit, (128 + number,))
            end.daemon = True
            end.start()
