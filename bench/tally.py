"""Counts of handled messages in shared memory: a handler adds to them for next to nothing.

Each worker process has a file of its own in the folder. In it is a gate too, shut at first: while it is,
the next handler's call waits, and the whole process with it. So a backlog can be put in place under a worker
that is up, and all workers start together.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Longest list of stamps of a process, each two numbers of 8 bytes.
STAMPS = 200_000
#: Where, in numbers of 8 bytes: the count, whether the gate is open, whether someone waits at it, stamps.
_COUNT, _OPEN, _WAITING, _STAMPS = range(4)
_SIZE = 8 * (_STAMPS + 2 * STAMPS)
_KEYS = 1000


def sent_now(key: int) -> int:
    """Return what a payload carries: the monotonic clock in ns, its last three digits a key's number."""
    return time.monotonic_ns() // _KEYS * _KEYS + key


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a message was handled and when it was sent, in seconds by the monotonic clock.

    `key` is the number of its key. `anew` says that it met the handler of a changed route.
    """

    handled: float
    sent: float
    key: int
    anew: bool


class Tally:
    """The side of a worker process: count, and stamp if need be.

    Counting is for one thread, or under a lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open()
        os.register_at_fork(after_in_child=self._open)

    def count(self) -> None:
        """Count one message, when the gate is open."""
        cells = self._cells
        if not cells[_OPEN]:
            self._wait()
        cells[_COUNT] += 1

    def count_locked(self) -> None:
        """Count one message, from any thread."""
        with self._lock:
            self.count()

    def stamp(self, sent: int) -> None:
        """Count one message and write down when it was sent, negative for a changed route, and the time."""
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
    """The side of the one who measures: all worker processes together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, memoryview] = {}

    def waiting(self) -> int:
        """Return how many processes wait at their gate."""
        return sum(cells[_WAITING] for cells in self._cells())

    def open_gates(self) -> None:
        """Let all go on that are there."""
        for cells in self._cells():
            cells[_OPEN] = 1

    def shut_gates(self) -> None:
        """Have the next message of each process wait."""
        for cells in self._cells():
            cells[_OPEN] = 0

    def total(self) -> int:
        """Return how many messages were handled."""
        return sum(cells[_COUNT] for cells in self._cells())

    def stamps(self) -> Iterator[Stamp]:
        """Yield the stamps of all processes, but for messages that were never stamped by their sender."""
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
