"""The command: `python -m fuzz`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from fuzz.child import Failure, Progress, make, run_target
from fuzz.corpus import Corpus
from fuzz.target import TARGETS
from fuzz.target.target import Target

#: Time for each target in the long form, in seconds.
LONG = 120.0
#: How long one case may take, in seconds of the clock. After that its process is killed.
HANG = 60.0
#: Interval at which the processes are looked at, in seconds.
_LOOK = 0.1

_REPLAY = """\
A case is determined by its seed, its target and its number. `--seed N --target NAME --case K` runs it again.
A failure is reported once for each kind of error and place, with an input that was made as small as possible.
"""


@dataclass(frozen=True)
class _Running:
    target: Target
    process: BaseProcess
    progress: Progress
    failures: Connection


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the targets and print the failures; exit with 1 if there are any."""
    given = parser().parse_args(arguments)
    targets = [target for target in TARGETS if not given.target or target.name in given.target]
    seconds = given.seconds or (LONG if given.long else 0.0)
    print(f"seed {given.seed}", file=sys.stderr)
    failed = False
    must = bool(given.target) or bool(os.environ.get("CI"))
    ready = []
    for target in targets:
        if why := target.missing():
            print(f"{target.name}: not run, {why}")
            failed = failed or must
        else:
            ready.append(target)
    for failure in _run_all(ready, given.seed, given.case, seconds, given.jobs, long=given.long):
        failed = True
        print(_rendered(failure, given.seed))
    if failed:
        raise SystemExit(1)


def _run_all(
    targets: Sequence[Target], seed: int, case: int | None, seconds: float, jobs: int, *, long: bool
) -> Iterator[Failure]:
    """Run the targets, `jobs` at a time; yield their failures, and print how many cases each has run.

    Each runs one case, if it is given, or cases for `seconds`, or as many as a short run has.
    """
    context = multiprocessing.get_context("fork")
    waiting, running = list(targets), list[_Running]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(_start(context, waiting.pop(0), seed, case, seconds, long=long))
        running[0].process.join(_LOOK)
        for each in list(running):
            hangs = each.progress.case.value >= 0 and time.monotonic() > each.progress.began.value + HANG
            if hangs:
                each.process.kill()
                each.process.join()
            ended = not each.process.is_alive()
            yield from _received(each.failures)
            if not ended:
                continue
            running.remove(each)
            print(f"{each.target.name:<12} {each.progress.done.value:>7} cases", file=sys.stderr)
            if each.process.exitcode:
                yield _death(each, seed, hangs=hangs)


def _start(
    context: multiprocessing.context.ForkContext,
    target: Target,
    seed: int,
    case: int | None,
    seconds: float,
    *,
    long: bool,
) -> _Running:
    receiver, sender = context.Pipe(duplex=False)
    progress, until = Progress.new(context), time.monotonic() + seconds
    cases = range(2**62 if seconds else target.short) if case is None else range(case, case + 1)

    def is_over() -> bool:
        done = progress.done.value >= (target.least if long else 0)
        return bool(seconds) and time.monotonic() > until and done

    process = context.Process(
        target=partial(run_target, target, seed, cases, is_over, progress, sender), daemon=True
    )
    process.start()
    sender.close()
    return _Running(target, process, progress, receiver)


def _received(failures: Connection) -> Iterator[Failure]:
    try:
        while failures.poll():
            yield failures.recv()
    except EOFError:  # the process has ended
        pass


def _death(ended: _Running, seed: int, *, hangs: bool) -> Failure:
    """Return the failure of a case that ended its process, or that had to be killed."""
    case, code = ended.progress.case.value, ended.process.exitcode
    why = f"the case takes longer than {HANG:g} s" if hangs else f"the process ended with code {code}"
    given = repr(make(ended.target, seed, case, Corpus.read())) if case >= 0 else "no case has begun"
    return Failure(ended.target.name, case, why, why + "\n", given)


def _rendered(failure: Failure, seed: int) -> str:
    again = f"python -m fuzz --seed {seed} --target {failure.target} --case {failure.case}"
    return f"FAILED {again}\n{failure.text}input: {failure.given}\n"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    width = max(len(target.name) for target in TARGETS)
    lines = [f"  {target.name:<{width}}  {target.about}" for target in TARGETS]
    result = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Run abe-router on random and damaged input, and check properties that must hold.",
        epilog="\n".join(["targets:", *lines, "", _REPLAY]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [target.name for target in TARGETS]
    result.add_argument("--target", nargs="+", choices=names, metavar="NAME", help="run only these targets")
    result.add_argument(
        "--seed",
        type=int,
        default=random.randrange(1_000_000),
        metavar="N",
        help="seed of all cases; by default a random one",
    )
    result.add_argument("--case", type=int, metavar="K", help="run only the case of this number")
    result.add_argument(
        "--seconds", type=float, metavar="S", help="time for each target, not a number of cases"
    )
    result.add_argument("--long", action="store_true", help=f"{LONG:g} seconds for each target")
    result.add_argument(
        "--jobs", type=int, default=2, metavar="N", help="number of targets that run at the same time"
    )
    return result


if __name__ == "__main__":
    main()
