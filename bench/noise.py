"""Processor time that other programs use during a measurement."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.process import cpu_of

_TICKS = os.sysconf("SC_CLK_TCK")


class Noise:
    """The share of the processors that other programs use during a measurement.

    `server` is the process id of the server, which belongs to the benchmark. All other processes of the
    benchmark must have ended before the call of `share`.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._began, self._others = time.monotonic(), self._others_so_far()

    def share(self) -> float:
        """Return the share of all processors that other programs used since the start, from 0 to 1."""
        seconds = time.monotonic() - self._began
        return max(0.0, self._others_so_far() - self._others) / (seconds * (os.cpu_count() or 1))

    def _others_so_far(self) -> float:
        """Return the processor time of other programs since the boot, in seconds; see proc(5)."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, fields[:8])
        busy = (user + nice + system + interrupts + soft + stolen) / _TICKS
        return busy - sum(os.times()[:4]) - cpu_of(self._server)
