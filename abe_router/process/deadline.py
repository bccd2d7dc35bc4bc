"""Deadlines of a stop: the process ends in time, whatever a thread or the event loop does.

A stop has two phases. In the first, the application drains: `StopDeadline` ends the process when the event
loop does not answer once the drain time is over. In the second, nothing is left to drain, and the interpreter
waits for threads of handlers that may hang: `exit_within` limits that time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from abe_router.text import format_duration

_log = logging.getLogger("abe_router")

#: How long the exit may take once everything is drained, in seconds.
EXIT_GRACE = 0.4
#: When the event loop is asked whether it still runs, in seconds after the drain time.
_ASK_AFTER = 0.5
#: How long the event loop may take to answer, and the interval at which it is asked again, in seconds.
_ANSWER_TIME = 0.25
#: How long an event loop that answers may go on after the drain time, in seconds. It stores outcomes while
#: the backend is unavailable, and closes connections.
STORE_TIME = 7.0
#: How long the last log lines may take, in seconds.
_FLUSH_TIME = 0.35


class StopDeadline:
    """Ends the process when a stop takes too long; it watches from a thread of its own.

    States: idle, draining (`begin`: the drain time runs), storing (the drain time is over, and the event loop
    answers), ended (the process has been ended, because the loop did not answer or STORE_TIME was over).
    `drain` returns the drain time in seconds. `on_storing` is called in the thread, once.
    """

    def __init__(self, drain: Callable[[], float], on_storing: Callable[[], None]) -> None:
        self._drain, self._on_storing = drain, on_storing
        self._loop = asyncio.get_running_loop()
        self._began_at: float | None = None

    @property
    def left(self) -> float:
        """How much of the drain time is left, in seconds. Before `begin`, all of it is."""
        used = 0.0 if self._began_at is None else time.monotonic() - self._began_at
        return max(0.0, self._drain() - used)

    def begin(self) -> None:
        """Start to watch. Idempotent; may be called in any thread and in a signal handler."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            threading.Thread(target=self._watch, name="stop-deadline", daemon=True).start()

    def _watch(self) -> None:
        drained_at = time.monotonic() + self._drain()
        time.sleep(max(0.0, drained_at + _ASK_AFTER - time.monotonic()))
        storing = False
        while time.monotonic() < drained_at + STORE_TIME and self._loop_answers():
            if not storing:
                storing = True
                self._on_storing()
            time.sleep(_ANSWER_TIME)
        late = format_duration(time.monotonic() - drained_at)
        cause = "the stop is not done" if storing else "a handler blocks the event loop"
        _log.error("%s %s after the drain time: the process is ended", cause, late)
        end_process(1)

    def _loop_answers(self) -> bool:
        answered = threading.Event()
        with suppress(RuntimeError):  # the loop is closed, and `exit_within` limits the rest
            self._loop.call_soon_threadsafe(answered.set)
            return answered.wait(_ANSWER_TIME)
        return True


def exit_within(code: int, seconds: float = EXIT_GRACE) -> None:
    """End the process with `code` unless it has ended by itself after `seconds`."""
    timer = threading.Timer(seconds, end_process, (code,))
    timer.daemon = True
    timer.start()


def end_process(code: int) -> NoReturn:
    """End the process now, without waiting for threads; log lines are written before, if possible."""
    try:
        # In a thread, because another handler of the program's own may block.
        flushing = threading.Thread(target=logging.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_TIME)
    finally:
        os._exit(code)
