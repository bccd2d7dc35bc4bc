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
from chaos.row import Row, play
from chaos.store import RedisStore

#: How long faults go on in a row, in seconds, and how many seeds there are: short and long.
SHORT, LONG = (2.0, 1), (20.0, 3)

_REPLAY = """\
What a seed brings back: the messages and what their handlers do, which workers are picked, what is done, how
the file is edited, and how long everything lasts. What it does not: how far each process was at that moment,
which is for the operating system to say; where two things are done at once, their order; ports and paths.
A row that broke prints the command that plays it again, and keeps its folder: the ledger, the logs, the
afflictions and the backend's own files.
"""


class Turn(NamedTuple):
    """A row to be played."""

    fault: Fault
    backend: str
    seed: int


def main() -> None:
    """Break things and print the table; exit with 1 if the promise was broken."""
    given = parser().parse_args()
    seconds, seeds = LONG if given.long else SHORT
    seconds, seeds = given.seconds or seconds, given.seeds or seeds
    turns = [
        Turn(fault, backend, given.seed + number)
        for fault in FAULTS
        if not given.fault or fault.name in given.fault
        for backend in fault.backends
        if not given.backend or backend in given.backend
        for number in range(seeds)
    ]
    lacking = _lacking(turns, must=bool(given.backend) or bool(os.environ.get("CI")))
    turns = [turn for turn in turns if (turn.fault.name, turn.backend) not in lacking]
    print(_about(given.seed, seeds, seconds), file=sys.stderr)
    began = time.monotonic()
    rows = asyncio.run(_play(turns, seconds, given.program, given.rows))
    if rows:
        print(report.table(rows))
    for (name, backend), why in lacking.items():
        print(f"{name} on {backend}: not played, {why}")
    if remarks := report.remarks(rows):
        print(remarks)
    load, seconds_taken = os.getloadavg()[0], time.monotonic() - began
    print(f"{len(rows)} rows in {seconds_taken:.0f} s, with a load of {load:.1f}", file=sys.stderr)
    if wrong := report.complaints(rows, seconds):
        print(wrong, file=sys.stderr)
        raise SystemExit(1)


def _lacking(turns: Sequence[Turn], *, must: bool) -> dict[tuple[str, str], str]:
    """Return which rows cannot be played here, and why; exit when that is Redis, and it `must` be there."""
    found: dict[tuple[str, str], str] = {}
    no_redis = not RedisStore.installed()
    if no_redis and must and any(turn.backend == REDIS for turn in turns):
        raise SystemExit("redis-server is not installed; `--backend sqlite` does without it")
    for fault, backend, _ in turns:
        if why := "redis-server is not installed" if no_redis and backend == REDIS else fault.lacks():
            found[fault.name, backend] = why
    return found


async def _play(turns: Sequence[Turn], seconds: float, program: Path | None, at_once: int) -> list[Row]:
    """Play the rows, so many at a time."""
    places = asyncio.Semaphore(at_once)
    done = 0

    async def play_turn(turn: Turn) -> Row:
        nonlocal done
        async with places:
            row = await play(turn.fault, turn.backend, seed=turn.seed, seconds=seconds, program=program)
        done += 1
        if sys.stderr.isatty():
            state = f"{done} of {len(turns)}: {turn.fault.name} on {turn.backend}"
            print(f"\r\033[K{state}", end="", file=sys.stderr)
        return row

    try:
        return await asyncio.gather(*map(play_turn, turns))
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


def _about(seed: int, seeds: int, seconds: float) -> str:
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    which = f"seed {seed}" if seeds == 1 else f"seeds {seed} to {seed + seeds - 1}"
    return f"{which}, {seconds:g} s each; {os.cpu_count()} cores, {versions}"


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    faults = {fault.name: fault.about for fault in FAULTS}
    width = max(map(len, faults))
    words = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Break abe-router in every way we know, and count what is lost and doubled.",
        epilog="\n".join(
            ["faults:", *(f"  {n:<{width}}  {about}" for n, about in faults.items()), "", _REPLAY]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words.add_argument("--fault", nargs="+", choices=faults, metavar="NAME", help="only some of the faults")
    words.add_argument("--backend", nargs="+", choices=[SQLITE, REDIS], help="only one of the backends")
    words.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        metavar="N",
        help="what everything is drawn from, as said below; by default another each time",
    )
    about = f"{LONG[0]:g} seconds and {LONG[1]} seeds for each fault: half an hour in all"
    words.add_argument("--long", action="store_true", help=about)
    words.add_argument("--seconds", type=float, metavar="S", help="how long each fault goes on")
    words.add_argument("--seeds", type=int, metavar="N", help="how many seeds, from --seed on")
    words.add_argument("--rows", type=int, default=2, metavar="N", help="how many rows at a time")
    words.add_argument(
        "--program", type=Path, metavar="FILE", help="run this as worker, in place of abe-router"
    )
    return words


if __name__ == "__main__":
    main()
