"""The ledger of a run: one line for each fact, appended by the process that observed it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

#: A producer is about to publish a message; the backend has accepted it.
ASKED, ACCEPTED = "A", "P"
#: A handler has started; a handler has ended.
STARTED, ENDED = "S", "E"
#: A handler is about to block the event loop of its worker.
BLOCKED = "B"


class Entry(NamedTuple):
    """One line; `number` is that of the plan, `message` the id, `at` is in seconds since the epoch."""

    kind: str
    number: int
    message: str
    group: str
    attempt: int
    pid: int
    at: float


class Ledger:
    """A file that many processes append to; each line is one write, so lines do not mix."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, kind: str, number: int, message: str, group: str = "-", attempt: int = 0) -> None:
        """Append a line; all processes see it when this returns."""
        line = f"{kind} {number} {message} {group} {attempt} {os.getpid()} {time.time():.6f}\n"
        os.write(self._fd, line.encode())


def entry_of(line: str) -> Entry:
    """Return the entry of a line."""
    kind, number, message, group, attempt, pid, at = line.split()
    return Entry(kind, int(number), message, group, int(attempt), int(pid), float(at))
