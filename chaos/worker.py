"""The workers: `abe-router serve`, a fixed number of processes; each one that ends is replaced."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from chaos.checker import DEAD_LETTERED, HANDLED, InjectedFault, LogEntry
from chaos.growing import GrowingFile
from chaos.process import Process

#: Longest time until a worker logs that its routes run, in seconds.
PATIENCE = 60.0
#: Delay before a worker that could not start is replaced, in seconds.
RESTART_DELAY = 0.2
#: Exit codes of a drained worker: everything in flight was handled, or part of it was released.
DRAINED = 0, 1
#: Events that report a stored outcome.
_OUTCOMES = {HANDLED, DEAD_LETTERED, "retried", "skipped"}


class Worker(Process):
    """One worker process. Its log has a line for each stored outcome."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        super().__init__(argv, environment, log)
        self._lines = GrowingFile(log, _parsed)
        self._up_at = 0.0

    def lines(self, about: str = "") -> Iterator[dict[str, Any]]:
        """Yield the lines of its log, or those that contain a text."""
        return (line for text, line in self._lines.items() if about in text)

    def outcomes(self) -> Iterator[LogEntry]:
        """Yield the outcomes that it logged."""
        for pid, line in self._by_pid():
            if line["event"] in _OUTCOMES:
                attempt = line.get("attempt") or line.get("attempts") or 0
                group = line["route"].rpartition("/")[2]
                yield LogEntry(line["event"], line["message_id"], group, attempt, pid, _timestamp(line["ts"]))

    def _by_pid(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines of its log, each with the pid of the process that wrote it."""
        return ((self.pid, line) for line in self.lines())

    def last_reload(self) -> tuple[float, str]:
        """Return when the newest revision came into force, in seconds since the epoch, and that revision."""
        # The last line may be older: an edit does not wait until the previous edit has drained its routes.
        reloads = [line for line in self.lines() if line["event"] == "reloaded"]
        last = max(reloads, key=lambda line: line["number"], default=None)
        return (_timestamp(last["ts"]), last["revision"]) if last else (0.0, "")

    def warnings(self, since: float) -> list[str]:
        """Return its warnings and errors from that time on, except those about single messages."""
        since -= 0.001  # the log rounds its times down to milliseconds
        return [
            line["message"]
            for line in self.lines()
            if line["level"] in ("warning", "error")
            and "message_id" not in line
            and _timestamp(line["ts"]) >= since
        ]

    @property
    def is_up(self) -> bool:
        """Whether its routes run."""
        return self.up_at > 0

    @property
    def up_at(self) -> float:
        """When its routes started to run, in seconds since the epoch; 0 before that."""
        if not self._up_at:
            reloads = (line["ts"] for line in self.lines("reloaded") if line["event"] == "reloaded")
            self._up_at = next(map(_timestamp, reloads), 0.0)
        return self._up_at

    async def up(self) -> None:
        """Wait until its routes run, or it has ended."""
        until = time.monotonic() + PATIENCE
        while self.is_running and not self.is_up:
            if time.monotonic() > until:
                raise RuntimeError(f"a worker does not start; see {self.log}")
            await asyncio.sleep(0.02)


class WorkerGroup:
    """A fixed number of workers; `make` returns a worker that is not started yet."""

    def __init__(self, size: int, make: Callable[[int], Worker], rng: random.Random) -> None:
        self._size, self._make, self._rng = size, make, rng
        #: All workers so far, including those that ended.
        self.all: list[Worker] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._numbers = count(1)
        self._closing = False

    async def start(self) -> None:
        """Start the workers, and wait until their routes run."""
        self._tasks = [asyncio.create_task(self._run_slot()) for _ in range(self._size)]
        while len(self.all) < self._size:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(worker.up() for worker in self.all))

    async def close(self) -> None:
        """Kill all workers."""
        self.stop_replacing()
        await asyncio.gather(*(worker.end() for worker in self.all))
        await asyncio.gather(*self._tasks)

    def stop_replacing(self) -> None:
        """Replace no worker from now on."""
        self._closing = True

    def pick(self) -> Worker | None:
        """Return a random worker that is up, or None if no other worker is up."""
        up = [one for one in self.running if one.is_up and not one.is_awaited and not one.is_frozen]
        return self._rng.choice(up) if len(up) > 1 else None

    @property
    def running(self) -> Sequence[Worker]:
        """The workers that have not ended."""
        return [worker for worker in self.all if worker.is_running]

    def crashed(self) -> list[Worker]:
        """Return the workers that ended although no fault ended them."""
        return [worker for worker in self.all if worker.ended_at and not worker.is_awaited]

    def worker_deaths(self, signs: Mapping[int, float]) -> list[InjectedFault]:
        """Return a fault for each worker that died, without those that drained.

        `signs` has the time of the last ledger entry by pid. A worker that the harness did not kill died
        after that.
        """
        return [
            InjectedFault(worker.killed_at or signs.get(worker.pid, 0.0), worker.ended_at, worker.pid)
            for worker in self.all
            if worker.ended_at and (worker.killed_at or worker.code not in DRAINED)
        ]

    def worker_from(self, at: float) -> float:
        """Return the first moment from `at` on at which a worker ran, in seconds since the epoch."""
        spans = [(one.up_at, one.ended_at or math.inf) for one in self.all if one.is_up]
        return min((max(at, begin) for begin, end in spans if end > at), default=at)

    async def _run_slot(self) -> None:
        """Run one worker after another."""
        while not self._closing:
            worker = self._make(next(self._numbers))
            await worker.start()
            self.all.append(worker)
            await worker.wait()
            if not worker.is_up:  # the file has errors, or the backend is down: wait, as a supervisor does
                await asyncio.sleep(RESTART_DELAY)


def argv(program: Path | None, routes: Path, *options: str) -> list[str]:
    """Return the command of a worker: `abe-router serve`, or a program that takes the same arguments."""
    start = ["-m", "abe_router"] if program is None else [str(program)]
    arguments = ["serve", str(routes), "--log-format", "json", "--log-level", "debug"]
    return [*start, *arguments, *options]


def _parsed(line: str) -> tuple[str, dict[str, Any]] | None:
    return (line, json.loads(line)) if line.startswith("{") and line.endswith("}") else None


@cache
def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
