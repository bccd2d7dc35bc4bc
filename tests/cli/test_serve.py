"""`serve`: the worked example runs, logs, and stops on signals."""

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

from tests.limits import HANG

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the worked example, so that the test has its own database."""
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


def test_worked_example_has_no_diagnostics(example: Path) -> None:
    done = abe("check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "ok: 3 routes, 3 keys\n")


def test_once_handles_waiting_messages_and_exits(example: Path) -> None:
    for payload in ('{"id": 1, "total": 120}', '{"id": 2, "total": 0}'):
        assert abe("publish", "orders.created", payload).returncode == 0
    done = abe("serve", "--once")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "billing: charged 120 for order 1" in lines
    assert "audit: order 1 is large: 120" in lines
    assert sum(line.startswith("trail: orders.created") for line in lines) == 2
    records = [json.loads(line) for line in done.stderr.splitlines()]
    (started,) = [r["added"] for r in records if r["event"] == "reloaded"]
    assert sorted(started) == ["orders.#/trail", "orders.created/audit", "orders.created/billing"]
    (dead,) = [r for r in records if r["event"] == "dead_lettered"]
    assert (dead["route"], dead["kind"], dead["error"]) == (
        "orders.created/billing",
        "rejected",
        "Reject: nothing to charge",
    )
    assert "nothing to charge" in abe("dead", "list").stdout


def test_serve_runs_in_a_folder_whose_name_is_not_utf8(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = example / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    for name in ("routes.yaml", "schemas", "examples"):
        shutil.move(example / name, folder)
    monkeypatch.chdir(folder)
    assert abe("publish", "orders.created", '{"id": 1, "total": 120}').returncode == 0
    done = abe("serve", "--once")
    assert (done.returncode, "billing: charged 120 for order 1" in done.stdout) == (0, True), done.stderr


def test_status_shows_a_worker_until_a_signal_ends_it(example: Path) -> None:
    command = [sys.executable, "-m", "abe_router", "serve", "--log-format", "text"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        for line in worker.stderr:
            if "running 3 routes" in line:
                break
        assert f":{worker.pid} " in abe("status").stdout
        worker.send_signal(signal.SIGTERM)
        _, rest = worker.communicate(timeout=HANG)
    assert worker.returncode == 0
    assert "stopped in" in rest


def test_faulty_file_exits_78(example: Path) -> None:
    (example / "routes.yaml").write_text("routes: 3")
    done = abe("serve")
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == "error: routes.yaml cannot be used: 1 error"


def test_faults_in_tests_do_not_keep_the_routes_from_running(example: Path) -> None:
    with (example / "routes.yaml").open("a") as file:
        file.write("\n  stale: {publish: {key: orders.created, payload: {}}, handled: orders.created/x}\n")
    assert abe("check").returncode == 78
    assert abe("test").returncode == 78
    assert abe("publish", "orders.created", '{"id": 1, "total": 120}').returncode == 0
    done = abe("serve", "--once")
    assert (done.returncode, "no route `orders.created/x` (R112)" in done.stderr) == (0, True), done.stderr
    done = abe("serve", "--once", "--no-tests")
    assert (done.returncode, "R112" in done.stderr) == (0, False), done.stderr


def test_unreachable_backend_exits_69(example: Path) -> None:
    done = abe("serve", "--backend", "redis://127.0.0.1:1")
    assert done.returncode == 69
    assert done.stderr.splitlines()[-2].startswith("error: ")


def test_timed_out_thread_does_not_delay_the_exit(example: Path) -> None:
    (example / "examples" / "shop.py").write_text(
        "import time\ndef charge(order): time.sleep(60)\nrecord = follow = charge\n"
    )
    text = (example / "routes.yaml").read_text()
    (example / "routes.yaml").write_text(text.replace("timeout: 30s", "timeout: 100ms"))
    assert abe("publish", "orders.created", '{"id": 1, "total": 5}').returncode == 0
    done = abe("serve", "--once")
    assert done.returncode == 0
    assert "ran longer than 100ms" in done.stderr


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one process", "workers"])
def test_lines_that_a_handler_left_in_the_buffer_of_a_file_are_written_at_the_exit(
    example: Path, options: list[str]
) -> None:
    (example / "examples" / "shop.py").write_text(
        "file = open('charged.txt', 'a')\n"
        "def charge(order): file.write(f'{order[\"id\"]}\\n')\n"
        "def record(order): pass\n"
        "follow = record\n"
    )
    for number in (1, 2, 3):
        order = json.dumps({"id": number, "total": 5})
        assert abe("publish", "orders.created", order).returncode == 0
    done = abe("serve", "--once", *options)
    assert done.returncode == 0, done.stderr
    assert sorted((example / "charged.txt").read_text().split()) == ["1", "2", "3"]


@pytest.mark.parametrize("signals", [1, 2])
def test_endless_handler_delays_the_exit_only_for_the_drain_time(example: Path, signals: int) -> None:
    (example / "examples" / "shop.py").write_text(
        "import os, time\n"
        "def charge(order): os.write(1, b'busy\\n'), time.sleep(60)\n"  # one write: several threads
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
                time.sleep(0.1)  # two signals at once would count as one
            assert worker.wait(timeout=HANG) == (1 if signals == 1 else 128 + signal.SIGINT)
        finally:
            worker.kill()


FAILING = """\
def charge(order):
    return total(order)

def total(order):
    return order["totl"]
"""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_failed_attempt_logs_the_traceback_of_the_handlers_own_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    (tmp_path / "routes.yaml").write_text(
        f"backend: sqlite:///{tmp_path}/q.db\nroutes:\n  a.b: {{consumers: {{g: "
        "{handler: 'failing:charge', retry: {attempts: 2, initial: 10ms}}}}\n"
    )
    assert abe("publish", "a.b", "{}").returncode == 0
    done = abe("serve", "--once", "--log-format", log_format)
    frames = [
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/failing.py", line 2, in charge',
        "    return total(order)",
    ]
    if log_format == "json":
        records = [json.loads(line) for line in done.stderr.splitlines()]
        found = [r["traceback"] for r in records if r["event"] in {"retried", "dead_lettered"}]
        assert len(found) == 2
        for text in found:
            assert text.splitlines()[:3] == frames
            assert text.splitlines()[-1] == "KeyError: 'totl'"
    else:
        lines = done.stderr.splitlines()
        at = [n for n, line in enumerate(lines) if "failed: KeyError: 'totl'" in line]
        assert [lines[n + 1 : n + 4] for n in at] == [[f"  {frame}" for frame in frames]] * 2
    assert "abe_router/" not in done.stderr
