"""The init process of a container: runs the program in a child, and reaps orphaned processes.

A process whose parent has ended becomes a child of PID 1. If PID 1 does not wait for it, it stays in the
process table as a zombie. The program itself cannot wait for all children: it would take the exit codes of
those that handlers started and wait for. So PID 1 does nothing else.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

#: Signals that are passed on to the program.
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


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
