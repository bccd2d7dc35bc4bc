"""Notifies a service manager, by the protocol of sd_notify(3), and formats log lines for its journal.

States of the service: starting; running (READY=1); reloading (RELOADING=1), which ends with READY=1; stopping
(STOPPING=1), which is final. A text, STATUS, goes with each. With a watchdog, `ping` says at intervals that
the process is alive; when the pings end, the manager kills and restarts the service.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Self, TextIO

#: The levels of `logging` with the priorities of syslog(3); what is lower has 7.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
#: A third of the time after which the manager takes the process for dead: two pings may be late.
_PINGS = 3


class ServiceNotifier:
    """Sends the state of the service to the manager at `address`; without an address it sends nothing.

    `watchdog` is the time, in seconds, after which a process without a ping counts as dead, 0 for none. A
    notification never blocks and never raises. It may be sent from any thread and from a signal handler.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        # A socket in the abstract namespace begins with a null byte, which the variable writes as `@`.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = watchdog if address else 0.0
        self._stopping = False

    @classmethod
    def from_env(cls, env: MutableMapping[str, str] = os.environ) -> Self:
        """Read the variables of systemd, and remove them: they are not for child processes."""
        address = env.pop("NOTIFY_SOCKET", "")
        pid, microseconds = env.pop("WATCHDOG_PID", ""), env.pop("WATCHDOG_USEC", "")
        is_ours = not pid or pid == str(os.getpid())
        watchdog = int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() else 0.0
        return cls(address, watchdog)

    def ready(self, status: str) -> None:
        """Say that all routes run, after the start or after a reload."""
        if not self._stopping:
            self._send("READY=1", f"STATUS={status}")

    def reloading(self, status: str) -> None:
        """Say that an edit is put into force; `ready` says that it is done."""
        if not self._stopping:
            # systemd compares this time with that of a reload it has asked for.
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now}", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Describe the state in one line."""
        if not self._stopping:
            self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """Say that the process stops. Later states are not sent."""
        if not self._stopping:
            self._stopping = True
            self._send("STOPPING=1", "STATUS=stopping: running handlers are finished")

    def ping(self) -> None:
        """Say that the process is alive, if there is a watchdog."""
        if self.watchdog:
            self._send("WATCHDOG=1")

    async def ping_until_cancelled(self, check: Callable[[], None] = lambda: None) -> None:
        """Ping from the running event loop, so that a loop that stands still sends none.

        `check` is called before each ping. Return at once without a watchdog.
        """
        while self.watchdog:
            check()
            self.ping()
            await asyncio.sleep(self.watchdog / _PINGS)

    def _send(self, *assignments: str) -> None:
        # A text of several lines would be several assignments.
        lines = [" ".join(assignment.splitlines()) for assignment in assignments]
        if not self._address.startswith(("\0", "/")):  # there is none, or it is no socket of this machine
            return
        # A socket for each notification: a handler may close or inherit one that stays open.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(errors="replace"), self._address)


class JournalFormatter(logging.Formatter):
    """Puts the priority of a record in front of each of its lines, as `<3>`, which the journal takes off.

    `inner` formats the record; see sd-daemon(3).
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).split("\n"))


def is_journal(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether `stream` goes to the journal: JOURNAL_STREAM has its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _priority(level: int) -> int:
    """Return the priority of syslog(3) for a level of `logging`."""
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)
