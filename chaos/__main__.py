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

from chaos import report
from chaos.fault import FAULTS, Fault
from chaos.fault.fault import REDIS, SQLITE
from chaos.row import Row, play
from chaos.store import RedisStore

#: How long faults go on in a row, in seconds, and how many seeds there are: short and long.
SHORT, LONG = (2.5, 1), (120.0, 3)


def main() -> None:
    """Break things and print the table; exit with 1 if the promise was broken."""
    given = _parse()
    seconds, seeds = LONG if given.long else SHORT
    seeds_wanted = [given.seed + number for number in range(given.seeds or seeds)]
    faults = [fault for fault in FAULTS if not given.fault or fault.name in given.fault]
    turns = [
        (fault, backend, seed)
        for fault in faults
        for backend in fault.backends
        if not given.backend or backend in given.backend
        for seed in seeds_wanted
    ]
    if any(backend == REDIS for _, backend, _ in turns) and not RedisStore.installed():
        raise SystemExit("redis-server is not installed; `--backend sqlite` does without it")
    print(_about(seeds_wanted), file=sys.stderr)
    began = time.monotonic()
    rows = asyncio.run(_play(turns, given.seconds or seconds, given.program, given.rows))
    print(report.table(rows))
    if remarks := report.remarks(rows):
        print(remarks)
    print(f"{len(rows)} rows in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if wrong := report.complaints(rows):
        print(wrong, file=sys.stderr)
        raise SystemExit(1)


async def _play(
    turns: Sequence[tuple[Fault, str, int]], seconds: float, program: Path | None, at_once: int
) -> list[Row]:
    """Play the rows, so many at a time."""
    places = asyncio.Semaphore(at_once)
    done = 0

    async def turn(fault: Fault, backend: str, seed: int) -> Row:
        nonlocal done
        async with places:
            row = await play(fault, backend, seed=seed, seconds=seconds, program=program)
        done += 1
        if sys.stderr.isatty():
            print(f"\r\033[K{done} of {len(turns)}: {fault.name} on {backend}", end="", file=sys.stderr)
        return row

    try:
        return await asyncio.gather(*(turn(*one) for one in turns))
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


def _about(seeds: Sequence[int]) -> str:
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"seed {', '.join(map(str, seeds))}; {os.cpu_count()} cores, {versions}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Break abe-router in every way we know, and count what is lost and doubled.",
        epilog="The faults: " + "; ".join(f"{fault.name}: {fault.about}" for fault in FAULTS) + ".",
    )
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--fault", nargs="+", choices=names, metavar="NAME", help="only some of the faults")
    parser.add_argument("--backend", nargs="+", choices=[SQLITE, REDIS], help="only one of the backends")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        metavar="N",
        help="what the messages, the victims and the moments are drawn from; by default another each time",
    )
    parser.add_argument("--long", action="store_true", help="two minutes and three seeds for each fault")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each fault goes on")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds, from --seed on")
    parser.add_argument("--rows", type=int, default=2, metavar="N", help="how many rows at a time")
    parser.add_argument(
        "--program", type=Path, metavar="FILE", help="run this as worker, in place of abe-router"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
