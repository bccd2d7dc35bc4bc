"""The command: `python -m bench`."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bench import contender, suite
from bench.contender import Contender
from bench.environment import installed
from bench.metric import Values
from bench.noise import Noise
from bench.payload import payloads
from bench.saved import SavedRun, comparison, expectation
from bench.server import Server
from bench.suite import MEASUREMENTS, Measurement, Scale
from bench.table import Table
from bench.testbed import testbed_for

#: A run is quiet when other programs use at most this share of the processors.
QUIET = 0.05


def main() -> None:
    """Measure and print the table."""
    arguments = _parse()
    if arguments.compare or arguments.expect:
        _show_saved(arguments.compare, arguments.expect)
        return
    scale = (suite.LONG if arguments.long else suite.SHORT).times(arguments.sample)
    contenders = [
        c
        for c in (contender.LONG if arguments.long or arguments.contenders else contender.SHORT)
        if not arguments.contenders or c.name in arguments.contenders
    ]
    measurements = [
        m
        for m in MEASUREMENTS
        if (m.name in arguments.rows if arguments.rows else arguments.long or not m.is_long)
    ]
    wanted = [c for c in contenders if any(c in m.contenders([c]) for m in measurements)]
    contenders, missing = installed(wanted)
    for title, reason in missing.items():
        print(f"skipped: {title}: {reason}", file=sys.stderr)
    repeats = arguments.repeats or scale.repeats
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="abe-router-bench-") as folder, Server(Path(folder)) as server:
        # Programs start from bytecode, as they do after an installation.
        os.environ.update(PYTHONPYCACHEPREFIX=f"{folder}/bytecode", PYTHONDONTWRITEBYTECODE="")
        _compile(contenders, server)
        values, noise = measure(measurements, contenders, server, scale, repeats, arguments.patience)
        about = _about(server, time.monotonic() - began, noise)
        about.update({f"skipped, {title}": reason for title, reason in missing.items()})
    table = Table(values, [metric for m in measurements for metric in m.metrics], contenders, about)
    if arguments.json:
        json.dump(table.as_json(), sys.stdout, indent=1)
        print()
    else:
        print(table.as_text())


def _show_saved(compared: Sequence[Path] | None, expected: Path | None) -> None:
    """Print tables from saved runs; nothing is measured."""
    if compared:
        metrics = [metric for measurement in MEASUREMENTS for metric in measurement.metrics]
        before, after = map(SavedRun.read, compared)
        print(*comparison(before, after, metrics), sep="\n")
    if expected:
        print(*expectation(SavedRun.read(expected)), sep="\n")


def _compile(contenders: Sequence[Contender], server: Server) -> None:
    """Start each contender once, because its first start compiles its modules."""
    for one in contenders:
        _show_progress(f"compile: {one.title}")
        with (
            suppress(RuntimeError, OSError),
            testbed_for(one, server) as testbed,
            testbed.workers(testbed.spec(count=1)),
        ):
            pass


def measure(
    measurements: Sequence[Measurement],
    contenders: Sequence[Contender],
    server: Server,
    scale: Scale,
    repeats: int | None,
    patience: int,
) -> tuple[Values, list[float]]:
    """Run all measurements: each repeat runs every contender once, in random order.

    Other load on the machine therefore affects all contenders equally. Return the values, and for each run
    the share of the processors that other programs used. Ctrl-C ends the run, and keeps what was measured.
    """
    values, noise = Values(), []
    try:
        for measurement in measurements:
            for repeat in range(repeats or measurement.repeats):
                order = list(measurement.contenders(contenders))
                random.shuffle(order)
                for one in order:
                    _show_progress(f"{measurement.name} {repeat + 1}: {one.title}")
                    found, share = _run_once(measurement, one, server, scale, patience)
                    noise.append(share)
                    for name, value in found.items():
                        values.add(name, one.name, value)
    except KeyboardInterrupt:
        if not noise:
            raise
        print("interrupted: the rest was not measured", file=sys.stderr)
    _show_progress("")
    return values, noise


def _run_once(
    measurement: Measurement, contender: Contender, server: Server, scale: Scale, patience: int
) -> tuple[Mapping[str, float], float]:
    """Measure once, and up to `patience` times more while it is noisy; return the quietest run and its noise.

    A contender that fails is reported on stderr, and its values are NaN.
    """
    best: tuple[Mapping[str, float], float] | None = None
    for _ in range(1 + patience):
        noise = Noise(server.pid)
        try:
            found = measurement.run(contender, server, scale)
        except Exception as error:  # noqa: BLE001  one failure must not end a run of an hour
            what = f"{type(error).__name__}: {error}"
            print(f"{contender.title} failed at {measurement.name}: {what}", file=sys.stderr)
            return {metric.name: math.nan for metric in measurement.metrics}, noise.share()
        share = noise.share()
        if best is None or share < best[1]:
            best = found, share
        if share <= QUIET:
            break
    assert best is not None
    return best


def _show_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _about(server: Server, took: float, noise: Sequence[float]) -> dict[str, str]:
    usual, most = statistics.median(noise), max(noise)
    return {
        "where": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "with": f"Python {platform.python_version()}, Redis {server.version}",
        "payloads": f"{payloads('order').size} bytes, and {payloads('event').size:,} bytes",
        "took": f"{took:.0f} s",
        "noise": f"others used {usual:.0%} of the processors in the median run, {most:.0%} in the worst",
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure abe-router side by side with a hand-written loop and with its peers.",
    )
    names = [c.name for c in contender.LONG]
    rows = [m.name for m in MEASUREMENTS]
    parser.add_argument(
        "--long", action="store_true", help="all peers and rows, larger samples; one to two hours"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all values")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar="FILE",
        help="compare two results of --json, before and after",
    )
    parser.add_argument(
        "--expect", type=Path, metavar="FILE", help="print the table `What to expect` of a result of --json"
    )
    parser.add_argument("--sample", type=float, default=1.0, metavar="F", help="samples F times as large")
    parser.add_argument(
        "--patience", type=int, default=0, metavar="N", help="repeat a noisy run up to N times"
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="number of repeats of each measurement")
    parser.add_argument(
        "--rows", nargs="+", choices=rows, metavar="ROW", help=f"run only these: {', '.join(rows)}"
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=names, metavar="NAME", help=f"run only these: {', '.join(names)}"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
