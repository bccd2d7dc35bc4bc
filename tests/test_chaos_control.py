"""The control of chaos: what the machine withheld does not count against a time limit."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.control import Control
from chaos.fault import FAULTS
from chaos.report import table, violations
from chaos.row import Row

BURN = (
    "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nprint(flush=True)\nwhile True: pass"
)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel counts no waits")
def test_time_that_processes_wait_for_a_processor_does_not_count(tmp_path):
    three = [subprocess.Popen([sys.executable, "-c", BURN], stdout=subprocess.PIPE) for _ in range(3)]
    try:
        assert all(process.stdout.readline() for process in three)
        with Control(tmp_path, lambda: [process.pid for process in three]) as control:
            began = time.time()
            while control.since(began) > 0.6 * (time.time() - began) or time.time() < began + 0.5:
                assert time.time() < began + 30
                time.sleep(0.05)
    finally:
        for process in three:
            process.kill()
            process.wait()
            process.stdout.close()


def test_no_more_is_given_than_passed_and_a_sleep_counts(tmp_path):
    with Control(tmp_path, list) as control:  # of no process, which may wait all the time
        began = time.time()
        while not control.since(began) > 0.2:
            time.sleep(0.05)
        assert control.given(began, time.time()) <= time.time() - began


def test_missed_time_limit_breaks_a_row_and_is_no_violation_of_the_promise():
    row = Row(FAULTS[0], "sqlite", 1, late=("recovery took 9.0 s, the limit is 5 s",))
    assert "BROKEN" in table([row])
    assert "recovery took 9.0 s" in violations([row], 1.0)
    assert not row.wrong
