"""Signals of a process: SIGTERM and SIGINT while a handler blocks the event loop, and those of PID 1.

In a container, a process whose parent has ended becomes a child of PID 1. If PID 1 does not wait for it, it
stays in the process table as a zombie. The program itself cannot wait for all children: it would take the
exit codes of those that handlers started and wait for. So PID 1 does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from abe_router.process.deadline import exit_within

#: How long the process may take to exit after a second signal, in seconds, before it is ended.
GRACE = 1.0
#: Signals that stop the program.
_STOPPING = (signal.SIGTERM, signal.SIGINT)
#: Signals that are passed on to the program.
_FORWARDED = (*_STOPPING, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """While entered, the first signal calls `stop`, and each later one `force` with its number, in the loop.

    The first signal also calls `begin`, at once and in a thread, although the loop may be blocked. A handler
    that blocks the loop or ignores its cancellation cannot delay a forced exit: after `grace` seconds the
    process ends with 128 plus the signal's number, as a shell reports it. Without `force`, later signals are
    ignored, since the supervisor ends the process. Enter it in the main thread.

    Python runs the handler of a signal between two steps of the main thread. A signal that arrives just
    before a blocking call is handled after that call, and a second one counts with it as one. So a thread
    reads the signals, from the file descriptor to which Python writes each one when it arrives.
    """

    def __init__(
        self,
        stop: Callable[[], None],
        force: Callable[[int], None] | None,
        *,
        begin: Callable[[], None],
        grace: float = GRACE,
    ) -> None:
        self._stop, self._force, self._begin, self._grace = stop, force, begin, grace
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}
        self._forward: int | None = None

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._fd_before = self._take_over()
        threading.Thread(target=self._read, name="signals", daemon=True).start()
        for number in _STOPPING:
            self._before[number] = signal.signal(number, self._on_late_signal)
        # A process that a handler forks has the same socket: a signal to it would stop this one.
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=self._leave_in_child)
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self._fd_before)

    def _leave_in_child(self) -> None:
        if self._before:
            self._leave(-1)
        _let_go()

    def _leave(self, fd: int) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
        if (current := signal.set_wakeup_fd(-1)) == self._writer.fileno():
            current = fd
        with suppress(OSError, ValueError):  # the loop has closed it
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self._writer.close()  # the thread ends

    def _take_over(self) -> int:
        """Have each signal written for the thread; return the file descriptor it was written to before."""
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        if before != self._writer.fileno():
            # A copy, because the loop may close its own, and another file may get that number.
            self._forward = os.dup(before) if before >= 0 else None
        return before

    def _read(self) -> None:
        while numbers := self._reader.recv(4096):
            for number in numbers:
                if number in _STOPPING:
                    self._on_signal(number)
            if self._forward is not None:
                with suppress(OSError):  # the loop is closed, or has much to read
                    os.write(self._forward, numbers)
        self._reader.close()
        if self._forward is not None:
            os.close(self._forward)

    def _on_late_signal(self, number: int, _: FrameType | None) -> None:
        # A handler may set the file descriptor too, as `add_signal_handler` of asyncio's loop does.
        if self._take_over() != self._writer.fileno():
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        with suppress(RuntimeError):  # the loop is closed
            if not self._stopping:
                self._stopping = True
                self._begin()
                self._loop.call_soon_threadsafe(self._stop)
            elif self._force is not None:
                exit_within(128 + number, self._grace)
                self._loop.call_soon_threadsafe(self._force, number)


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


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
