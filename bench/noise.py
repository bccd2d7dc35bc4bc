"""What else the machine does: processor time that is not ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.process import cpu_of

_TICKS = os.sysconf("SC_CLK_TCK")


class Noise:
    """The part of the processors that others use while something is measured.

    `server` is the process id of the server, which is ours and does not end with what is measured. All
    other processes of ours must have ended when `heard` is asked.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._began, self._others = time.monotonic(), self._others_so_far()

    def heard(self) -> float:
        """Return how much of all processors others have used since the beginning, from 0 to 1."""
        seconds = time.monotonic() - self._began
        return max(0.0, self._others_so_far() - self._others) / (seconds * (os.cpu_count() or 1))

    def _others_so_far(self) -> float:
        """Return the processor time of others since the machine started, in seconds; see proc(5)."""
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _idle, _waiting, interrupts, soft, stolen = map(int, fields[:8])
        busy = (user + nice + system + interrupts + soft + stolen) / _TICKS
        return busy - sum(os.times()[:4]) - cpu_of(self._server)
