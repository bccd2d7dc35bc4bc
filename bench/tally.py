"""Counts of handled messages in shared memory: a handler adds to them for next to nothing.

Each worker process has a file of its own in the folder. Its first call waits until the gate is opened, so
that all start together and starting up is not measured.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Longest list of stamps of a process, each two numbers of 8 bytes.
STAMPS = 200_000
_SIZE = 8 * (1 + 2 * STAMPS)
_GATE = "gate"
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
        self._arrived = False
        self._open()
        os.register_at_fork(after_in_child=self._open)

    def count(self) -> None:
        """Count one message; the first one waits until the gate is open."""
        if not self._arrived:
            self._arrive()
        self.cells[0] += 1

    def count_locked(self) -> None:
        """Count one message, from any thread."""
        with self._lock:
            self.count()

    def stamp(self, sent: int) -> None:
        """Count one message and write down when it was sent, negative for a changed route, and the time."""
        if not self._arrived:
            self._arrive()
        cells = self.cells
        at = 1 + 2 * (cells[0] % STAMPS)
        cells[at], cells[at + 1] = time.monotonic_ns(), sent
        cells[0] += 1

    def _open(self) -> None:
        path = self._folder / f"tally-{os.getpid()}"
        with path.open("w+b") as file:
            file.truncate(_SIZE)
            self.cells = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("q")

    def _arrive(self) -> None:
        (self._folder / f"arrived-{os.getpid()}").touch()
        while not (self._folder / _GATE).exists():
            time.sleep(0.0005)
        self._arrived = True


class Tallies:
    """The side of the one who measures: what all worker processes have counted together."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, mmap.mmap] = {}

    def arrived(self) -> int:
        """Return how many processes have had their first message."""
        return len(list(self._folder.glob("arrived-*")))

    def open_gate(self) -> None:
        """Let them start."""
        (self._folder / _GATE).touch()

    def total(self) -> int:
        """Return how many messages were handled."""
        return sum(self.each())

    def each(self) -> list[int]:
        """Return how many messages were handled, by process."""
        for path in self._folder.glob("tally-*"):
            if path.name not in self._maps and path.stat().st_size == _SIZE:
                with path.open("rb") as file:
                    self._maps[path.name] = mmap.mmap(file.fileno(), _SIZE, access=mmap.ACCESS_READ)
        return [struct.unpack_from("q", view)[0] for view in self._maps.values()]

    def stamps(self) -> Iterator[Stamp]:
        """Yield the stamps of all processes, but for messages that were never stamped by their sender."""
        for count, view in zip(self.each(), self._maps.values(), strict=True):
            for handled, sent in struct.iter_unpack("qq", view[8 : 8 + 16 * min(count, STAMPS)]):
                if sent:
                    yield Stamp(handled / 1e9, abs(sent) / 1e9, abs(sent) % _KEYS, sent < 0)
