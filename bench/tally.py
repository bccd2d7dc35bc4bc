"""Counts of handled messages in shared memory, which cost a handler almost nothing.

Each worker process has a file in the folder. The file contains a gate, which is shut at first. While it is
shut, the next call of a handler waits and blocks its process. This allows the benchmark to publish a backlog
to running workers, and to start all workers at the same time.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Highest number of stamps of a process; each has two numbers of 8 bytes.
STAMPS = 200_000
#: Positions, in numbers of 8 bytes: the count, whether the gate is open, whether a call waits, the stamps.
_COUNT, _OPEN, _WAITING, _STAMPS = range(4)
_SIZE = 8 * (_STAMPS + 2 * STAMPS)
_KEYS = 1000


def sent_now(key: int) -> int:
    """Return the value that a payload carries: the monotonic clock in ns, ending in the key's number."""
    return time.monotonic_ns() // _KEYS * _KEYS + key


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time at which a message was handled, and at which it was sent, in seconds of the monotonic clock.

    `key` is the number of its key. `edited` is True in the handler of the edited route.
    """

    handled: float
    sent: float
    key: int
    edited: bool


class Tally:
    """The counter of a worker process.

    One thread may count at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open()
        os.register_at_fork(after_in_child=self._open)

    def count(self) -> None:
        """Count one message, after the gate has opened."""
        cells = self._cells
        if not cells[_OPEN]:
            self._wait()
        cells[_COUNT] += 1

    def count_locked(self) -> None:
        """Count one message, from any thread."""
        with self._lock:
            self.count()

    def stamp(self, sent: int) -> None:
        """Count one message; record its send time (negative for the edited route) and the current time."""
        cells = self._cells
        if not cells[_OPEN]:
            self._wait()
        at = _STAMPS + 2 * (cells[_COUNT] % STAMPS)
        cells[at], cells[at + 1] = time.monotonic_ns(), sent
        cells[_COUNT] += 1

    def _open(self) -> None:
        path = self._folder / f"tally-{os.getpid()}"
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self._cells = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("q")

    def _wait(self) -> None:
        self._cells[_WAITING] = 1
        while not self._cells[_OPEN]:
            time.sleep(0.0005)
        self._cells[_WAITING] = 0


class Tallies:
    """The counters of all worker processes, for the process that measures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, memoryview] = {}

    def waiting(self) -> int:
        """Return the number of processes that wait at their gate."""
        return sum(cells[_WAITING] for cells in self._cells())

    def open_gates(self) -> None:
        """Open the gates of all processes."""
        for cells in self._cells():
            cells[_OPEN] = 1

    def shut_gates(self) -> None:
        """Shut the gates: the next call of each process waits."""
        for cells in self._cells():
            cells[_OPEN] = 0

    def total(self) -> int:
        """Return the number of handled messages."""
        return sum(cells[_COUNT] for cells in self._cells())

    def stamps(self) -> Iterator[Stamp]:
        """Yield the stamps of all processes, without messages that have no send time."""
        for cells in self._cells():
            for at in range(_STAMPS, _STAMPS + 2 * min(cells[_COUNT], STAMPS), 2):
                handled, sent = cells[at], cells[at + 1]
                if sent:
                    yield Stamp(handled / 1e9, abs(sent) / 1e9, abs(sent) % _KEYS, sent < 0)

    def _cells(self) -> Collection[memoryview]:
        for path in self._folder.glob("tally-*"):
            if path.name not in self._maps and path.stat().st_size == _SIZE:
                with path.open("r+b") as file:
                    self._maps[path.name] = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("q")
        return self._maps.values()
