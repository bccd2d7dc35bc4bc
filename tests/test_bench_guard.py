"""Guards against a slow router, with bounds on ratios to a hand-written loop in the same run.

An absolute time depends on the machine. A ratio that falls far shows that the router became several times
slower, for example because a batch falls apart into round trips.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abe_router.testing import RedisServer

pytestmark = pytest.mark.alone
ROOT = Path(__file__).parent.parent

#: The worst ratio to the loop that passes, by row and contender: a third of the usual ratio, or less.
AT_LEAST = {("drain", "redis"): 0.15, ("drain", "memory"): 0.25, ("publish.batch", "redis"): 0.1}
AT_MOST = {("drain.cpu", "redis"): 5.0, ("drain.memory", "redis"): 2.5}
#: Number of runs, of which the best counts: the machine may be busy with other work.
RUNS = 3


def measure() -> Any:
    rows = ["--rows", "drain", "publish", "--contenders", "loop", "redis", "memory"]
    command = [sys.executable, "-m", "bench", *rows, "--repeats", "1", "--sample", "0.2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["ratios"]


def slow(ratios: Any) -> list[str]:
    reached = {(row, name): ratios[row][name] for row, name in [*AT_LEAST, *AT_MOST]}
    below = [cell for cell, bound in AT_LEAST.items() if reached[cell] < bound]
    above = [cell for cell, bound in AT_MOST.items() if reached[cell] > bound]
    return [f"{row} of {name}: {reached[row, name]:.2f}" for row, name in below + above]


@pytest.mark.skipif(
    not (RedisServer.installed() or os.environ.get("CI")), reason="redis-server is not installed"
)
def test_ratios_to_the_hand_written_loop_stay_within_bounds():
    found = ["not measured"]
    for _ in range(RUNS):
        if not (found := slow(measure())):
            break
    assert not found
