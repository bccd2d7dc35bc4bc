"""Tests of `python -m chaos`: it accepts a correct router, and reports the violation of a faulty one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chaos.__main__ import parser
from chaos.fault import FAULTS

pytestmark = [pytest.mark.timeout(180), pytest.mark.heavy(50)]
ROOT = Path(__file__).parent.parent
PROGRAM = Path(__file__).with_name("chaos_worker.py")
#: Maps a bug to the fault that reveals it, to the time for it in seconds, and to patterns of the reported
#: violations. Which violation a late settle causes depends on whether it comes before or after the settle of
#: the owner. Not each freeze catches a worker with a message, so there is time for several.
BUGS = {
    "acks before the handler": ("kill", "2", ["lost: "]),
    "never reclaims": ("kill", "2", [r"stuck in chaos\."]),
    "settles for anyone": (
        "freeze",
        "4",
        ["settled twice: |settled after the lease was lost: |duplicated without a fault: "],
    ),
    "does all twice": ("none", "1", ["duplicated without a fault: ", "emitted twice: ", "settled twice: "]),
}
NO_BUG = "no bug"


def chaos(tmp_path, fault, *options, bug=""):
    command = [
        sys.executable,
        "-m",
        "chaos",
        "--backend",
        "sqlite",
        "--seed",
        "1",
        "--fault",
        fault,
        *options,
    ]
    environment = {**os.environ, "BUG": bug, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run a row with each bug and one without, all at the same time: most of the time they wait."""

    def run_row(bug, folder):
        fault, seconds, _ = BUGS.get(bug, ("none", "1", []))
        return chaos(folder, fault, "--seconds", seconds, "--program", str(PROGRAM), bug=bug), folder

    bugs = (*BUGS, NO_BUG)
    folders = [tmp_path_factory.mktemp("chaos") for _ in bugs]
    with ThreadPoolExecutor(len(bugs)) as at_once:
        return dict(zip(bugs, at_once.map(run_row, bugs, folders), strict=True))


@pytest.mark.parametrize("bug", BUGS)
def test_worker_with_a_bug_breaks_the_row(results, bug):
    (done, _), (fault, seconds, words) = results[bug], BUGS[bug]
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
    for word in words:
        assert re.search(word, done.stderr), done.stderr
    again = f"again: python -m chaos --fault {fault} --backend sqlite --seed 1 --seconds {seconds}"
    assert again in done.stderr


def test_chaos_page_lists_every_fault_and_its_commands_parse():
    page = (ROOT / "docs" / "chaos.md").read_text()
    rows = re.findall(r"^\| (`.+?) \|", page.partition("## The faults")[2], re.MULTILINE)
    assert {fault.name for fault in FAULTS} == set(re.findall(r"`(.+?)`", " ".join(rows)))
    commands = re.findall(r"^python -m chaos (.*?) *(?:#.*)?$", page, re.MULTILINE)
    for command in commands:
        parser().parse_args(command.split())
    assert len(commands) == 3


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_redis_rows_without_a_server_are_skipped_but_fail_in_ci(tmp_path, ci, code):
    environment = {**os.environ, "ABE_ROUTER_REDIS_SERVER": str(tmp_path / "none"), "CI": ci}
    command = [sys.executable, "-m", "chaos", "--fault", "crash"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "redis-server is not installed" in (done.stderr if code else done.stdout)


def test_router_without_a_bug_holds_and_leaves_no_files(results):
    done, folder = results[NO_BUG]
    assert (done.returncode, list(folder.iterdir())) == (0, [])
    assert done.stdout.splitlines()[1].split()[-1] == "held"
