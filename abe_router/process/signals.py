"""Signals of a process: SIGTERM and SIGINT while a handler blocks the event loop, and those of PID 1.

In a container, a process whose parent has ended becomes a child of PID 1. If PID 1 does not wait for it, it
stays in the process table as a zombie. The program itself cannot wait for all children: it would take the
exit codes of those that handlers started and wait for. So PID 1 does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from abe_router.process.deadline import exit_within

#: How long the process may take to exit after a second signal, in seconds, before it is ended.
GRACE = 1.0
#: Signals that are passed on to the program.
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


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


def run_as_init() -> int | None:
    """Fork; return None in the child, which runs the program, and its exit code in the parent.

    The parent passes signals on and reaps every child until the program ends. The child has a process group
    of its own, so that Ctrl-C in a terminal reaches it once. The exit code of a program that a signal killed
    is 128 plus the number of the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until the handlers below are set
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        return None

    def forward(number: int, _: FrameType | None) -> None:
        os.kill(child, number)  # it exists: only this process can reap it

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        pid, status = os.wait()
        if pid == child:
            for number in _FORWARDED:
                signal.signal(number, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
