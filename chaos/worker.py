"""The workers: `abe-router serve`, as many as asked for, each replaced when it ends."""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from chaos.checker import DEAD_LETTERED, HANDLED, InjectedFault, LogEntry
from chaos.process import Process

#: How long a worker may take to say that it runs, in seconds.
PATIENCE = 60.0
#: Until a worker that could not start is replaced, in seconds.
RESTART_DELAY = 0.2
#: How workers end that were asked to: all in hand is done, or what was not in time is handed back.
DRAINED = 0, 1
#: Events that say that an outcome is kept.
_OUTCOMES = {HANDLED, DEAD_LETTERED, "retried", "skipped"}


class Worker(Process):
    """One worker, that tells of every message it settled."""

    def lines(self, about: str = "") -> Iterator[dict[str, Any]]:
        """Go through its log, or through the lines in which some text is."""
        with self.log.open() as lines:
            for line in lines:
                if about in line and line.startswith("{") and line.endswith("}\n"):
                    yield json.loads(line)

    def told(self) -> Iterator[LogEntry]:
        """Go through the outcomes it told."""
        for pid, line in self._by_pid():
            if line["event"] in _OUTCOMES:
                attempt = line.get("attempt") or line.get("attempts") or 0
                group = line["route"].rpartition("/")[2]
                yield LogEntry(line["event"], line["message_id"], group, attempt, pid, _timestamp(line["ts"]))

    def _by_pid(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Go through its log, with who wrote each line."""
        return ((self.pid, line) for line in self.lines())

    def last_reload(self) -> tuple[float, str]:
        """Return when the table in force came into force, in seconds since the epoch, and its hash."""
        # Not the last line: an edit does not wait for what the one before it still drains.
        reloads = [line for line in self.lines() if line["event"] == "reloaded"]
        last = max(reloads, key=lambda line: line["number"], default=None)
        return (_timestamp(last["ts"]), last["revision"]) if last else (0.0, "")

    def violations(self, since: float) -> list[str]:
        """Return its warnings and errors since then, but those of single messages."""
        since -= 0.001  # the log cuts its times to milliseconds
        return [
            line["message"]
            for line in self.lines()
            if line["level"] in ("warning", "error")
            and "message_id" not in line
            and _timestamp(line["ts"]) >= since
        ]

    @property
    def is_up(self) -> bool:
        """Whether it has begun to run its routes."""
        return self.up_at > 0

    @property
    def up_at(self) -> float:
        """When it began to run its routes, in seconds since the epoch; 0 for not yet."""
        reloads = (_timestamp(line["ts"]) for line in self.lines("reloaded") if line["event"] == "reloaded")
        return next(reloads, 0.0)

    async def up(self) -> None:
        """Wait until it is up, or has ended."""
        until = time.monotonic() + PATIENCE
        while self.is_running and not self.is_up:
            if time.monotonic() > until:
                raise RuntimeError(f"a worker does not start; see {self.log}")
            await asyncio.sleep(0.02)


class WorkerGroup:
    """So many workers at any time; `make` makes one, not yet started."""

    def __init__(self, size: int, make: Callable[[int], Worker], rng: random.Random) -> None:
        self._size, self._make, self._rng = size, make, rng
        #: All there ever were.
        self.all: list[Worker] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._numbers = count(1)
        self._closing = False

    async def start(self) -> None:
        """Start them, and wait until all run."""
        self._keeping = [asyncio.create_task(self._keep()) for _ in range(self._size)]
        while len(self.all) < self._size:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(worker.up() for worker in self.all))

    async def close(self) -> None:
        """Kill them all."""
        self.stop_replacing()
        await asyncio.gather(*(worker.end() for worker in self.all))
        await asyncio.gather(*self._keeping)

    def stop_replacing(self) -> None:
        """Let those that end be the last."""
        self._closing = True

    def pick(self) -> Worker | None:
        """Return one that is up, None unless another is up too, so that work goes on."""
        up = [one for one in self.running if one.is_up and not one.is_awaited and not one.is_frozen]
        return self._rng.choice(up) if len(up) > 1 else None

    @property
    def running(self) -> Sequence[Worker]:
        """Those that have not ended."""
        return [worker for worker in self.all if worker.is_running]

    def crashed(self) -> list[Worker]:
        """Return those that ended and nobody wanted them to."""
        return [worker for worker in self.all if worker.ended_at and not worker.is_awaited]

    def worker_deaths(self, signs: Mapping[int, float]) -> list[InjectedFault]:
        """Return when which of them died; to drain is not to die.

        `signs` are the last of life, by pid: who is not killed by us died some time after that.
        """
        return [
            InjectedFault(worker.killed_at or signs.get(worker.pid, 0.0), worker.ended_at, worker.pid)
            for worker in self.all
            if worker.ended_at and (worker.killed_at or worker.code not in DRAINED)
        ]

    def worker_from(self, at: float) -> float:
        """Return when, from then on, one of them ran its routes; times are in seconds since the epoch."""
        spans = [(one.up_at, one.ended_at or math.inf) for one in self.all if one.is_up]
        return min((max(at, begin) for begin, end in spans if end > at), default=at)

    async def _keep(self) -> None:
        """Run one worker after the other."""
        while not self._closing:
            worker = self._make(next(self._numbers))
            await worker.start()
            self.all.append(worker)
            await worker.wait()
            if not worker.is_up:  # the file was faulty, or the backend away: as a supervisor, wait a little
                await asyncio.sleep(RESTART_DELAY)


def argv(program: Path | None, routes: Path, *options: str) -> list[str]:
    """Return the command of a worker: `abe-router serve`, or a program that takes the same arguments."""
    start = ["-m", "abe_router"] if program is None else [str(program)]
    words = ["serve", str(routes), "--log-format", "json", "--log-level", "debug"]
    return [sys.executable, *start, *words, *options]


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
