"""The peers of the benchmark: their environments, and what happens where one cannot be made."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import process, tally
from bench.__main__ import measure
from bench.contender import LONG
from bench.environment import NotInstalled, installed, node_modules_of
from bench.measurement import Measurement
from bench.metric import Metric
from bench.payload import SIZES, payloads
from bench.suite import MEASUREMENTS, SHORT
from bench.target import TARGETS

ROOT = Path(__file__).parent.parent
PEERS = {contender.name: contender for contender in LONG if contender.pins}
BULLMQ = PEERS["bullmq"]


def program(folder: Path, name: str, script: str) -> None:
    """Write an executable script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Return the folder of all programs that can be found; it has only a `node`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "node", "exit 0")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_every_peer_has_pins_and_a_program():
    for name, peer in PEERS.items():
        assert (ROOT / "bench/contenders" / f"{peer.module}.py").exists(), name
        pins = [path for path in (ROOT / "bench/pins").iterdir() if path.stem == peer.pins]
        assert len(pins) == 1, name


def test_pins_name_one_version_of_each_package():
    for path in (ROOT / "bench/pins").glob("*.txt"):
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in path.read_text().splitlines()), path
    for path in (ROOT / "bench/pins").glob("*.json"):
        versions = json.loads(path.read_text())["dependencies"].values()
        assert all(re.fullmatch(r"[\d.]+", version) for version in versions), path


def test_peer_without_its_programs_is_skipped(programs):
    ready, missing = installed([LONG[0], BULLMQ])
    assert (ready, missing) == ([LONG[0]], {"BullMQ": "`npm` is not installed"})


def test_peer_whose_packages_cannot_be_installed_is_tried_again(programs, capfd):
    program(programs, "npm", "exit 1")
    with pytest.raises(NotInstalled, match="its packages could not be installed"):
        node_modules_of("bullmq")
    program(programs, "npm", 'echo "$@"')
    assert node_modules_of("bullmq").parent.joinpath("package.json").exists()
    assert "install --ignore-scripts" in capfd.readouterr().err


def test_environment_is_made_once_for_its_pins(programs, tmp_path):
    program(programs, "npm", f"echo run >> {tmp_path}/runs")
    assert node_modules_of("bullmq") == node_modules_of("bullmq")
    assert (tmp_path / "runs").read_text() == "run\n"


def test_command_names_each_skipped_peer(tmp_path):
    command = [sys.executable, "-m", "bench", "--contenders", "bullmq", "--rows", "drain", "--json"]
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "skipped: BullMQ: `node` is not installed\n" in done.stderr


def test_counters_of_the_node_program_have_the_layout_of_the_others():
    text = (ROOT / "bench/contenders/bullmq.cjs").read_text()
    constants = dict(re.findall(r"\b([A-Z_]+) = (\d+)", text))
    expected = {
        "STAMPS": tally.STAMPS,
        "HEADER": tally._STAMPS,
        "COUNT": tally._COUNT,
        "OPEN": tally._OPEN,
        "WAITING": tally._WAITING,
        "KEYS": tally._KEYS,
    }
    assert {name: int(constants[name]) for name in expected} == expected


def test_rows_have_distinct_names_and_known_contenders():
    names = [metric.name for measurement in MEASUREMENTS for metric in measurement.metrics]
    assert len(names) == len(set(names))
    known = {contender.name for contender in LONG}
    for measurement in MEASUREMENTS:
        assert known.issuperset({*measurement.only, *measurement.excluded}), measurement.name
    assert {target.metric for target in TARGETS} <= set(names)


def test_payloads_of_a_size_have_about_that_size_and_pass_their_check():
    for kind, size in SIZES.items():
        sized = payloads(kind)
        assert sized.size == pytest.approx(size, rel=0.2)
        sized.check(sized.values[0])


def run_measurement(run, contenders, **options):
    metrics = (Metric("made.up", "made up", "x"),)
    made_up = Measurement("made up", metrics, run, **options)
    server = SimpleNamespace(pid=os.getpid())
    return measure([made_up], contenders, server, SHORT, 1, 0)


def test_contender_that_fails_in_any_way_does_not_end_the_run(capfd):
    def run(contender, server, scale):
        if contender is BULLMQ:
            raise KeyError("one")
        return {"made.up": 2.0}

    values, noise = run_measurement(run, [LONG[0], BULLMQ])
    assert (values.median("made.up", "loop"), values.median("made.up", "bullmq")) == (2.0, None)
    assert len(noise) == 2
    assert "BullMQ failed at made up: KeyError: 'one'" in capfd.readouterr().err


def test_interrupted_run_keeps_what_was_measured(capfd):
    done = []

    def run(contender, server, scale):
        done.append(contender.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return {"made.up": 2.0}

    values, _ = run_measurement(run, LONG[:3])
    assert [name for name in ("loop", "redis", "sqlite") if values.of("made.up", name)] == done[:1]
    assert "interrupted" in capfd.readouterr().err


def test_process_that_does_not_end_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "LONGEST", 0.01)
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        process.Process(command, {}, tmp_path / "log") as running,
        pytest.raises(RuntimeError, match=r"did not end within 0\.01 s"),
    ):
        running.wait()
