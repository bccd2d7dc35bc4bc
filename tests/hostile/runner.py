"""Runs `check --no-import` on hostile files, each in a process with limits on time and memory.

The process forks for each case, so that Python starts once for all of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from abe_router.cli.root import run as run_command
from tests.hostile.corpus import Files, cases

#: What a check of any file may take: seconds of processor time, and bytes of resident memory.
MAX_SECONDS, MAX_BYTES = 10.0, 300_000_000


def write(folder: Path, files: Files) -> None:
    """Write the files of a case."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def measured(files: Files, *options: str, stop_after: float = 2 * MAX_SECONDS) -> dict[str, float]:
    """Check the files of a case in a child; return its exit code, seconds, bytes of memory and of output."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, files)
        with (folder / "output").open("wb") as output:
            child = os.fork()
            if not child:
                _check(folder, output.fileno(), options, int(stop_after))
            _, status, usage = os.wait4(child, 0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": usage.ru_utime + usage.ru_stime,
            "memory": usage.ru_maxrss * 1024,
            "output": (folder / "output").stat().st_size,
        }


def _check(folder: Path, output: int, options: tuple[str, ...], seconds: int) -> None:
    """Run the command in the child, which ends here."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    code = 99
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        os.environ["LARGE"] = "v" * 100_000
        code = run_command(["check", "--no-import", *options])
        sys.stdout.flush()
    finally:
        os._exit(code)


def main(names: list[str]) -> None:
    """Print one JSON object for each case."""
    for name, files in cases():
        if not names or name in names:
            print(json.dumps({"name": name, **measured(files)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
