"""`make test` runs the tests that failed once more, one at a time; only a second failure is red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "rerun.py"
CHANCE = """\
import os
from pathlib import Path

def is_first(name):
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def test_that_passes():
    pass

def test_that_fails_by_chance():
    assert not is_first("chance")

def test_that_ends_its_worker_by_chance():
    if is_first("worker"):
        os._exit(9)
"""
FAULTY = "def test_with_a_fault():\n    assert not 'right'\n"
FORKED = ["--processes", "2"]


def run(folder: Path, *options: str, **files: str) -> tuple[int, str]:
    """Return the exit code and the output of a run of these test modules."""
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.forked", *options]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the plugins that are installed take most of the time
        "PYTEST_ADDOPTS": "",
        "PYTHONPATH": str(ROOT),
        "GITHUB_ACTIONS": "true",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "parallel", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def passed_alone_only(folder: Path) -> list[str]:
    path = folder / ".pytest_cache" / "passed_alone_only"
    return path.read_text().splitlines() if path.exists() else []


def test_chance_failures_are_listed_and_the_run_passes(tmp_path):
    code, output = run(tmp_path, *FORKED, chance=CHANCE)
    assert code == 0, output
    lines = [
        f"passed alone only: test_chance.py::test_that_{what}_by_chance"
        for what in ("ends_its_worker", "fails")
    ]
    assert passed_alone_only(tmp_path) == lines
    for line in lines:
        assert f"\n{line}\n::warning::{line}\n" in output
    # Nothing is left over for the next run.
    assert run(tmp_path, *FORKED)[0] == 0
    assert passed_alone_only(tmp_path) == lines


def test_a_second_failure_fails_the_run(tmp_path):
    code, output = run(tmp_path, "-k", "not ends_its_worker", chance=CHANCE, faulty=FAULTY)
    assert code == 1
    assert "2 failed. They run once more, one at a time." in output
    assert passed_alone_only(tmp_path) == ["passed alone only: test_chance.py::test_that_fails_by_chance"]


@pytest.mark.parametrize("options", [[], FORKED], ids=["one process", "forked"])
def test_an_error_in_collection_fails_the_run_at_once(tmp_path, options):
    code, output = run(tmp_path, *options, chance=CHANCE, broken="import nothing_of_this_name\n")
    assert code not in (0, 5), output
    assert "once more" not in output


def test_many_failures_do_not_run_again(tmp_path):
    many = "import pytest\n@pytest.mark.parametrize('n', range(21))\ndef test_many(n):\n    assert 0\n"
    code, output = run(tmp_path, "--tb=no", many=many)
    assert code == 1
    assert "once more" not in output


def test_a_run_without_failures_or_without_tests_passes(tmp_path):
    assert run(tmp_path, "-k", "that_passes", chance=CHANCE)[0] == 0
    assert run(tmp_path, "-k", "of_another_name")[0] == 0
    assert passed_alone_only(tmp_path) == []


def test_stages_follow_each_other_and_a_file_of_heavy_tests_runs_in_one_process(tmp_path):
    stages = """\
import os
import pytest

@pytest.mark.alone
def test_alone():
    assert len(open("stages").read().split()) == 8

@pytest.mark.heavy
@pytest.mark.parametrize("number", range(4))
def test_heavy(number):
    with open("stages", "a") as file:
        file.write(f"{os.getpid()}\\n")
    pids = open("stages").read().split()
    assert len(pids) > 4 and set(pids[4:]) == {str(os.getpid())}

@pytest.mark.parametrize("number", range(4))
def test_of_the_first_stage(number):
    with open("stages", "a") as file:
        file.write(f"{os.getppid()}\\n")
    print(f"printed by {number}")
    assert len(open("stages").read().split()) <= 4
"""
    code, output = run(tmp_path, *FORKED, "-rP", stages=stages)
    assert code == 0, output
    assert all(f"printed by {number}\n" in output for number in range(4))
