"""Tables from saved runs of the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contender import REDIS
from bench.metric import Metric, Values
from bench.saved import SavedRun, comparison, expectation
from bench.suite import MEASUREMENTS
from bench.table import Table

ROOT = Path(__file__).parent.parent
DRAIN = Metric("drain", "drain a backlog", "/s", more_is_better=True)


def saved(path: Path, values: dict[str, dict[str, list[float]]]) -> Path:
    path.write_text(json.dumps({"about": {"with": path.stem, "noise": "none"}, "values": values}))
    return path


def test_comparison_shows_what_both_runs_have(tmp_path):
    before = saved(tmp_path / "old", {"drain": {"redis": [100, 300, 200], "memory": [7]}})
    after = saved(tmp_path / "new", {"drain": {"redis": [500, 500, None], "sqlite": [50]}})
    lines = list(comparison(SavedRun.read(before), SavedRun.read(after), [DRAIN]))
    assert lines[:2] == ["before: old; none", "after: new; none"]
    assert [line.split() for line in lines[3:]] == [
        ["before", "after", "ratio"],
        ["drain", "a", "backlog", "redis", "200", "500", "2.50", "/s"],
    ]


def test_expectation_has_a_row_for_each_figure_and_two_digits(tmp_path):
    values = {
        "drain": {"redis": [214_800], "sqlite": [96_400], "loop": [1]},
        "latency.p50": {"redis": [287.0], "memory": [52.4]},
    }
    lines = list(expectation(SavedRun.read(saved(tmp_path / "run", values))))
    assert lines[0] == "| | Redis | SQLite | memory |"
    assert lines[2] == "| handled by one worker, per second | 210,000 | 96,000 |  |"
    assert lines[5] == "| from `publish` to the handler, in the median | 0.29 ms |  | 0.052 ms |"


def test_rows_of_the_expectation_are_rows_of_the_benchmark(tmp_path):
    metrics = {metric.name for measurement in MEASUREMENTS for metric in measurement.metrics}
    run = SavedRun.read(saved(tmp_path / "run", {name: {"redis": [1000.0]} for name in metrics}))
    rows = list(expectation(run))[2:]
    assert len(rows) == 5
    assert all(row.split(" | ")[1].strip() for row in rows)


def test_saved_run_reads_what_the_table_prints(tmp_path):
    values = Values()
    for value in (1.0, float("nan"), 3.0):
        values.add("drain", "redis", value)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(Table(values, [DRAIN], [REDIS], {"with": "x"}).as_json()))
    assert SavedRun.read(path).median("drain", "redis") == 2.0


@pytest.mark.parametrize("text", ["", "[]", '{"about": {}}'])
def test_other_file_is_refused_by_its_name(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    command = [sys.executable, "-m", "bench", "--expect", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{path} is not a saved run")
