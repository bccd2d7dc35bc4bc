"""What the machine withheld from the processes of a row, so that time limits measure the program alone."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

#: Time between two looks, in seconds.
BEAT = 0.05
#: Longest time that a sync of one small file takes on a disk that does not stall, in seconds.
SYNC = 0.1


@dataclass
class _Sum:
    """A sum that only grows, by time; between two moments it grows evenly."""

    times: list[float] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def add(self, at: float, total: float) -> None:
        self.sums.append(total)
        self.times.append(at)

    def between(self, begin: float, end: float) -> float:
        return max(0.0, self._at(end) - self._at(begin))

    def _at(self, at: float) -> float:
        times, sums = self.times, self.sums
        after = bisect_right(times, at)
        if after in (0, len(times)):
            return sums[after - 1] if after else 0.0
        part = (at - times[after - 1]) / (times[after] - times[after - 1])
        return sums[after - 1] + part * (sums[after] - sums[after - 1])


class Control:
    """A thread that waits and writes as the processes of a row do, and sums up how late that comes.

    Three things count as withheld: how late the sleeps of the thread end, what the sync of a small file takes
    beyond `SYNC`, and the longest time that one process of the row waited for a processor. Linux counts the
    last in `/proc/PID/schedstat`; elsewhere it is 0. `pids` returns the processes; their children count too.
    `folder` is on the disk of the row.
    """

    def __init__(self, folder: Path, pids: Callable[[], Iterable[int]]) -> None:
        self._path, self._pids = folder / "control", pids
        self._stalls, self._waits = _Sum(), defaultdict[int, _Sum](_Sum)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def given(self, begin: float, end: float) -> float:
        """Return how much of the time between two moments the machine gave, in seconds.

        Both are in seconds since the epoch.
        """
        waited = max((waits.between(begin, end) for waits in list(self._waits.values())), default=0.0)
        return max(0.0, end - begin - self._stalls.between(begin, end) - waited)

    def since(self, begin: float) -> float:
        """Return how much of the time since `begin` the machine gave, in seconds."""
        return self.given(begin, time.time())

    def _run(self) -> None:
        stalled = 0.0
        while not self._ending.is_set():
            began = time.monotonic()
            self._ending.wait(BEAT)
            stalled += max(0.0, time.monotonic() - began - BEAT) + max(0.0, self._sync() - SYNC)
            now = time.time()
            self._stalls.add(now, stalled)
            for pid in self._family():
                if (waited := _run_delay(pid)) is not None:
                    self._waits[pid].add(now, waited)

    def _sync(self) -> float:
        """Write and sync a small file; return how long it took, in seconds."""
        began = time.monotonic()
        try:
            file = os.open(self._path, os.O_CREAT | os.O_WRONLY)
            try:
                os.write(file, b"control")
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:  # one of the faults fills the disk
            return 0.0
        return time.monotonic() - began

    def _family(self) -> Iterator[int]:
        left = list(self._pids())
        while left:
            yield (pid := left.pop())
            try:
                left += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue


def _run_delay(pid: int) -> float | None:
    """Return how long a process has waited for a processor, in seconds; None if it is unknown."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return None
