"""`serve`: the worked example runs, says so in its log, and ends when told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the worked example, so that its database is its own."""
    shutil.copy(ROOT / "routes.yaml", tmp_path)
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("ABE_ROUTER_BACKEND", raising=False)
    return tmp_path


def abe(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "abe_router", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_the_worked_example_has_no_fault_and_no_warning(example: Path) -> None:
    done = abe("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "ok: 3 routes, 3 keys\n")


def test_once_handles_what_waits_and_exits(example: Path) -> None:
    for payload in ('{"id": 1, "total": 120}', '{"id": 2, "total": 0}'):
        assert abe("publish", "orders.created", payload).returncode == 0
    done = abe("serve", "--once")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "billing: charged 120 for order 1" in said
    assert "audit: order 1 is large: 120" in said
    assert sum(line.startswith("trail: orders.created") for line in said) == 2
    records = [json.loads(line) for line in done.stderr.splitlines()]
    started = [r["route"] for r in records if r["event"] == "consumer_started"]
    assert sorted(started) == ["orders.#/trail", "orders.created/audit", "orders.created/billing"]
    (dead,) = [r for r in records if r["event"] == "dead_lettered"]
    assert (dead["route"], dead["kind"], dead["error"]) == (
        "orders.created/billing",
        "rejected",
        "Reject: nothing to charge",
    )
    assert "nothing to charge" in abe("dead", "list").stdout


def test_it_runs_in_a_folder_whose_name_is_not_utf8(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = example / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    for name in ("routes.yaml", "schemas", "examples"):
        shutil.move(example / name, folder)
    monkeypatch.chdir(folder)
    assert abe("publish", "orders.created", '{"id": 1, "total": 120}').returncode == 0
    done = abe("serve", "--once")
    assert (done.returncode, "billing: charged 120 for order 1" in done.stdout) == (0, True), done.stderr


def test_a_signal_ends_it_and_until_then_status_shows_it(example: Path) -> None:
    command = [sys.executable, "-m", "abe_router", "serve", "--log-format", "text"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        for line in worker.stderr:
            if "running 3 routes" in line:
                break
        assert f":{worker.pid} " in abe("status").stdout
        worker.send_signal(signal.SIGTERM)
        _, rest = worker.communicate(timeout=10)
    assert worker.returncode == 0
    assert "stopped in" in rest


def test_a_file_with_faults_does_not_start(example: Path) -> None:
    (example / "routes.yaml").write_text("routes: 3")
    done = abe("serve")
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == "error: routes.yaml cannot be used: 1 error"


def test_a_backend_out_of_reach_is_69(example: Path) -> None:
    done = abe("serve", "--backend", "redis://127.0.0.1:1")
    assert done.returncode == 69
    assert done.stderr.splitlines()[-2].startswith("error: ")


def test_a_thread_whose_handler_ran_out_of_time_does_not_hold_it(example: Path) -> None:
    (example / "examples" / "shop.py").write_text(
        "import time\ndef charge(order): time.sleep(60)\nrecord = follow = charge\n"
    )
    text = (example / "routes.yaml").read_text()
    (example / "routes.yaml").write_text(text.replace("timeout: 30s", "timeout: 100ms"))
    assert abe("publish", "orders.created", '{"id": 1, "total": 5}').returncode == 0
    done = abe("serve", "--once")
    assert done.returncode == 0
    assert "ran longer than 0.1 s" in done.stderr


@pytest.mark.parametrize("signals", [1, 2])
def test_a_handler_that_does_not_end_holds_it_no_longer_than_the_drain(example: Path, signals: int) -> None:
    (example / "examples" / "shop.py").write_text(
        "import os, time\n"
        "def charge(order): os.write(1, b'busy\\n'), time.sleep(60)\n"  # in one piece: several threads write
        "record = follow = charge\n"
    )
    assert abe("publish", "orders.created", '{"id": 1, "total": 5}').returncode == 0
    drain = "0.1" if signals == 1 else "60"
    command = [sys.executable, "-m", "abe_router", "serve", "--drain", drain]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "busy\n"
            for _ in range(signals):
                worker.send_signal(signal.SIGINT)
                time.sleep(0.1)  # two at once would count as one
            assert worker.wait(timeout=10) == (1 if signals == 1 else 128 + signal.SIGINT)
        finally:
            worker.kill()
