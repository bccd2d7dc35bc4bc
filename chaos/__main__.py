"""The command: `python -m chaos`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from chaos import report
from chaos.fault import FAULTS, Fault
from chaos.fault.fault import REDIS, SQLITE
from chaos.row import Row, run_row
from chaos.storage import RedisStorage

#: Time for faults in each row, in seconds, and number of seeds, in the short and in the long form.
SHORT, LONG = (1.0, 1), (20.0, 3)

_REPLAY = """\
A seed repeats the messages and what their handlers do, which workers are picked, the injections, the edits,
and all durations. It does not repeat how far each process had come at that moment, the order of two
concurrent actions, or ports and paths. A row that broke prints the command that repeats it, and keeps its
folder: the ledger, the logs, the injected faults, and the files of the backend.
"""


class RowSpec(NamedTuple):
    """A row that will run."""

    fault: Fault
    backend: str
    seed: int


def main() -> None:
    """Run the rows and print the table; exit with 1 if the promise was broken."""
    given = parser().parse_args()
    seconds, seeds = LONG if given.long else SHORT
    seconds, seeds = given.seconds or seconds, given.seeds or seeds
    specs = [
        RowSpec(fault, backend, given.seed + number)
        for fault in FAULTS
        if not given.fault or fault.name in given.fault
        for backend in fault.backends
        if not given.backend or backend in given.backend
        for number in range(seeds)
    ]
    missing = _missing(specs, must=bool(given.backend) or bool(os.environ.get("CI")))
    specs = [spec for spec in specs if (spec.fault.name, spec.backend) not in missing]
    print(_about(given.seed, seeds, seconds), file=sys.stderr)
    began = time.monotonic()
    # What is not compiled yet is compiled once, which takes longer than the rest of the start of a process.
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""
    rows = asyncio.run(_run_all(specs, seconds, given.program, given.rows))
    rows = asyncio.run(_run_late_again(rows, seconds, given.program))
    if rows:
        print(report.table(rows))
    for (name, backend), why in missing.items():
        print(f"{name} on {backend}: not run, {why}")
    if notes := report.notes(rows):
        print(notes)
    load, seconds_taken = os.getloadavg()[0], time.monotonic() - began
    print(f"{len(rows)} rows in {seconds_taken:.0f} s, with a load of {load:.1f}", file=sys.stderr)
    if wrong := report.violations(rows, seconds):
        print(wrong, file=sys.stderr)
        raise SystemExit(1)


def _missing(specs: Sequence[RowSpec], *, must: bool) -> dict[tuple[str, str], str]:
    """Return the rows that cannot run here, and why; exit if Redis is missing and `must` is true."""
    found: dict[tuple[str, str], str] = {}
    no_redis = not RedisStorage.installed()
    if no_redis and must and any(spec.backend == REDIS for spec in specs):
        raise SystemExit("redis-server is not installed; use `--backend sqlite`")
    for fault, backend, _ in specs:
        if why := "redis-server is not installed" if no_redis and backend == REDIS else fault.missing():
            found[fault.name, backend] = why
    return found


async def _run_all(specs: Sequence[RowSpec], seconds: float, program: Path | None, at_once: int) -> list[Row]:
    """Run the rows, `at_once` at a time."""
    slots = asyncio.Semaphore(at_once)
    done = 0

    async def run_spec(spec: RowSpec) -> Row:
        nonlocal done
        async with slots:
            row = await run_row(spec.fault, spec.backend, seed=spec.seed, seconds=seconds, program=program)
        done += 1
        if sys.stderr.isatty():
            state = f"{done} of {len(specs)}: {spec.fault.name} on {spec.backend}"
            print(f"\r\033[K{state}", end="", file=sys.stderr)
        return row

    try:
        # The last rows of the table take the longest. They begin, and none is left alone at the end.
        return (await asyncio.gather(*map(run_spec, reversed(specs))))[::-1]
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


async def _run_late_again(rows: list[Row], seconds: float, program: Path | None) -> list[Row]:
    """Run the rows that broke on time alone once more, one at a time; return all rows."""
    found = list[Row]()
    for row in rows:
        if row.late and not row.wrong:
            where = f"{row.fault.name} on {row.backend}, kept in {row.folder}"
            print(f"{where}, runs once more by itself: {row.late[0]}", file=sys.stderr)
            found.append(
                await run_row(row.fault, row.backend, seed=row.seed, seconds=seconds, program=program)
            )
        else:
            found.append(row)
    return found


def _about(seed: int, seeds: int, seconds: float) -> str:
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    which = f"seed {seed}" if seeds == 1 else f"seeds {seed} to {seed + seeds - 1}"
    return f"{which}, {seconds:g} s each; {os.cpu_count()} cores, {versions}"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    faults = {fault.name: fault.about for fault in FAULTS}
    width = max(map(len, faults))
    result = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Inject faults into a running abe-router, and count lost and duplicated messages.",
        epilog="\n".join(
            ["faults:", *(f"  {n:<{width}}  {about}" for n, about in faults.items()), "", _REPLAY]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--fault", nargs="+", choices=faults, metavar="NAME", help="run only these faults")
    result.add_argument("--backend", nargs="+", choices=[SQLITE, REDIS], help="run only on these backends")
    result.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        metavar="N",
        help="seed of all random choices, as explained below; by default a random one",
    )
    about = f"{LONG[0]:g} seconds and {LONG[1]} seeds for each fault: half an hour in all"
    result.add_argument("--long", action="store_true", help=about)
    result.add_argument("--seconds", type=float, metavar="S", help="time for faults in each row")
    result.add_argument("--seeds", type=int, metavar="N", help="number of seeds, counted from --seed")
    result.add_argument(
        "--rows", type=int, default=2, metavar="N", help="number of rows that run at the same time"
    )
    result.add_argument(
        "--program", type=Path, metavar="FILE", help="run this program as the worker instead of abe-router"
    )
    return result


if __name__ == "__main__":
    main()
