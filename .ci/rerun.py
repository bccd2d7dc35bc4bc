"""Run tests, and run those that failed once more, one at a time. Only a second failure fails the run.

    python .ci/rerun.py NAME COMMAND...

COMMAND runs pytest. NAME is the name of its cache, so that runs side by side do not disturb each other.
A test that passes the second time is printed as `passed alone only: NODEID`, and the line is appended to
`.pytest_cache/passed_alone_only`, which `.ci/timed` prints at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Exit codes of pytest: all tests passed, some failed, none were selected. Every other code, as for an error
#: in collection, says nothing about single tests.
PASSED, FAILED, NONE_SELECTED = 0, 1, 5
#: More failures than this are not chance, and do not run again.
MOST = 20
CACHES = Path(".pytest_cache")
LIST = CACHES / "passed_alone_only"


def run_twice(name: str, command: Sequence[str]) -> int:
    """Run the tests, and again those that failed; return the exit code."""
    cache = CACHES / name
    command = [*command, "-o", f"cache_dir={cache}"]
    first = _run([*command, "--cache-clear"])
    if first in (PASSED, NONE_SELECTED):
        return 0
    failed = _failed(cache)
    # With xdist a module that cannot be collected is among them, by its path alone.
    if first != FAILED or not 0 < len(failed) <= MOST or not all("::" in test for test in failed):
        return first
    print(f"{len(failed)} failed. They run once more, one at a time.", flush=True)
    again = ["--last-failed", "--last-failed-no-failures", "none", "--numprocesses", "0"]
    second = _run([*command, *again])
    for test in sorted(failed - _failed(cache)) if second in (PASSED, FAILED) else ():
        _report(f"passed alone only: {test}")
    return second


def _run(command: Sequence[str]) -> int:
    return subprocess.run(command, check=False).returncode  # noqa: S603  the Makefile chooses the command


def _failed(cache: Path) -> set[str]:
    """Return the tests that failed in the run before."""
    try:
        return set(json.loads((cache / "v" / "cache" / "lastfailed").read_text()))
    except FileNotFoundError:
        return set()


def _report(line: str) -> None:
    print(line, flush=True)
    if os.environ.get("GITHUB_ACTIONS"):
        print(f"::warning::{line}", flush=True)  # the page of the run shows it
    with LIST.open("a") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(run_twice(sys.argv[1], sys.argv[2:]))
