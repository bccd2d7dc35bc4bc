"""How many processors there are for this process, and not merely in the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

#: The share of the processors that a container has, by Linux's control groups, version 2.
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores(quota: Path = QUOTA) -> int:
    """Return how many processors this process may use: at least 1, and part of one counts as one."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = quota.read_text().split()
        known = min(known, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no control groups, or no limit: the file says `max`
        pass
    return max(1, known)
