"""SIGTERM and SIGINT, handled even while a handler blocks the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from abe_router.process.deadline import exit_within

#: How long the process may take to exit after a second signal, in seconds, before it is ended.
GRACE = 1.0


class Signals:
    """While entered, the first signal calls `stop`, and each later one `force` with its number, in the loop.

    The first signal also calls `begin`, at once, although the loop may be blocked. A handler that blocks the
    loop or ignores its cancellation cannot delay a forced exit: after GRACE the process ends with 128 plus
    the signal's number, as a shell reports it. Without `force`, later signals are ignored, since the
    supervisor ends the process. Python handles signals in the main thread only.
    """

    def __init__(
        self, stop: Callable[[], None], force: Callable[[int], None] | None, *, begin: Callable[[], None]
    ) -> None:
        self._stop, self._force, self._begin = stop, force, begin
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not the loop's `add_signal_handler`, whose callback waits for the loop.
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            self._begin()
            self._loop.call_soon_threadsafe(self._stop)
        elif self._force is not None:
            self._loop.call_soon_threadsafe(self._force, number)
            exit_within(128 + number, GRACE)
