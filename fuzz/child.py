"""Runs the cases of one target in a process of its own, within the budget of each case."""

from __future__ import annotations

import logging
import random
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from ctypes import c_double, c_longlong
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from fuzz.corpus import ROOT, Corpus
from fuzz.minimise import minimise
from fuzz.target.target import Input, Target, Violated

#: How much the largest memory of the process may grow in one case, in MiB.
MAX_GROWTH = 384
#: Address space of a process beyond that at its start, in bytes. What asks for more gets a MemoryError.
MAX_ADDRESS_SPACE = 3 * 1024**3
#: A file system in memory, on which no sync takes time.
_MEMORY = Path("/dev/shm")  # noqa: S108


@dataclass(frozen=True)
class Failure:
    """A case whose property did not hold. `signature` is the same for cases that fail in the same way."""

    target: str
    case: int
    signature: str
    text: str
    given: str


@dataclass(frozen=True)
class Progress:
    """What a process shares with its parent: the running case, when it began, and how many are done."""

    case: Synchronized[int]
    began: Synchronized[float]
    done: Synchronized[int]

    @classmethod
    def new(cls, context: Any) -> Progress:
        """Make it in shared memory."""
        return cls(context.Value(c_longlong, -1), context.Value(c_double, 0.0), context.Value(c_longlong, 0))


class _Unexpected(logging.Handler):
    """Collects the log records that carry a traceback: an error that the program did not expect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            self.texts.append(logging.Formatter().format(record))


class Cases:
    """Runs single cases of an open target."""

    def __init__(self, target: Target, seed: int, corpus: Corpus, progress: Progress) -> None:
        self._target, self._seed, self._corpus, self._progress = target, seed, corpus, progress
        self._logged = _Unexpected()
        logger = logging.getLogger()
        logger.handlers[:] = [self._logged]
        for name in ("abe_router", "asyncio"):
            logging.getLogger(name).setLevel(logging.ERROR)

    def make(self, case: int) -> Input:
        """Return the input of a case."""
        return make(self._target, self._seed, case, self._corpus)

    def run(self, case: int) -> Failure | None:
        """Run a case; return how it failed, with a smaller input if one fails in the same way."""
        given = self.make(case)
        if (error := self._try(given)) is None:
            return None
        signature = sign(error)

        def fails(smaller: Input) -> bool:
            again = self._try(smaller)
            return again is not None and sign(again) == signature

        given = minimise(given, fails)
        text = "".join(traceback.format_exception(self._try(given) or error))
        return Failure(self._target.name, case, signature, text, repr(given))

    def _try(self, given: Input) -> Exception | None:
        self._logged.texts.clear()
        self._progress.began.value = time.monotonic()
        before, began = _peak(), time.process_time()
        try:
            self._target.check(given)
        except Exception as error:  # noqa: BLE001  any error is what this looks for
            return error
        used, grown = time.process_time() - began, _peak() - before
        if used > self._target.seconds:
            return Violated(f"a case takes {used:.1f} s of processor time")
        if grown > MAX_GROWTH:
            return Violated(f"a case takes {grown} MiB of memory")
        if self._logged.texts:
            return Violated(f"logged with a traceback: {self._logged.texts[0]}")
        return None


def make(target: Target, seed: int, case: int, corpus: Corpus) -> Input:
    """Return the input of a case; the same numbers make the same input."""
    return target.make(random.Random(f"{seed} {target.name} {case}"), corpus)


def sign(error: Exception) -> str:
    """Return what identifies a fault: the kind of error, and the line of this repository that raised it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    place = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else ""
    text = "".join(c for c in str(error)[:60] if not c.isdigit()) if isinstance(error, Violated) else ""
    return f"{type(error).__name__} {place} {text}".strip()


def run_target(
    target: Target,
    seed: int,
    cases: range,
    is_over: Callable[[], bool],
    progress: Progress,
    failures: Connection,
) -> None:
    """Run cases until `is_over`, and send each new kind of failure."""
    _limit_memory()
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        target.open(Path(folder))
        try:
            runner = Cases(target, seed, Corpus.read(), progress)
            for case in cases:
                progress.began.value, progress.case.value = time.monotonic(), case
                failure = runner.run(case)
                progress.done.value += 1
                if failure is not None and failure.signature not in seen:
                    seen.add(failure.signature)
                    failures.send(failure)
                if is_over():
                    break
        finally:
            target.close()


def _peak() -> int:
    """Return the most memory that the process has had, in MiB. Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _limit_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MAX_ADDRESS_SPACE, hard))
