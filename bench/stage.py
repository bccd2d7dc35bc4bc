"""Where contenders perform: a clean server, a clean folder, and their processes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.contender import Contender
from bench.environment import python_of
from bench.process import Process
from bench.server import Server
from bench.spec import Spec
from bench.tally import Tallies

#: How long anything is waited for, in seconds.
PATIENCE = 60.0
#: How often it is looked, in seconds.
_LOOK = 0.002


class Stage:
    """One contender's turn; nothing of an earlier turn is left. A context manager makes one: `staged`."""

    def __init__(self, contender: Contender, server: Server, folder: Path) -> None:
        self.contender, self.server, self.folder = contender, server, folder
        self.tallies = Tallies(folder)
        self._python = python_of(contender.pins)
        self._log = folder / "output.log"

    def spec(self, **options: Any) -> Spec:
        """Return the work for a process of it."""
        urls = {
            "redis": self.server.url,
            "sqlite": f"sqlite:///{self.folder}/bench.db",
            "memory": "memory://",
        }
        url = urls[self.contender.keeps]
        return Spec(str(self.folder), url, uvloop=self.contender.uvloop, **options)

    def start(self, role: str, spec: Spec) -> Process:
        """Start a process; a context manager ends it."""
        module = f"bench.contenders.{self.contender.module}"
        return Process([self._python, "-m", module, role], spec.environment(), self._log)

    def run(self, role: str, spec: Spec) -> Mapping[str, float]:
        """Run a process to its end and return the last JSON object that it printed, or an empty one."""
        with self.start(role, spec) as process:
            process.wait()
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else {}

    @contextmanager
    def workers(self, spec: Spec, count: int = 1) -> Iterator[list[Process]]:
        """Start workers and wait until every route has handled a message; their gates are open then."""
        warm = spec if self.in_memory else replace(spec, count=spec.routes)
        if not self.in_memory:
            self.run("fill", warm)
        processes = [self.start("work", warm) for _ in range(count)]
        try:
            self.wait(lambda: self.tallies.waiting() > 0, processes)
            self.tallies.open_gates()
            if not self.in_memory:
                self.wait(lambda: self._handled(warm.count), processes)
            yield processes
        finally:
            for process in processes:
                process.end()

    def hold(self, spec: Spec, processes: list[Process]) -> int:
        """Shut the gates, put the messages of `spec` in place, and wait until every process has one.

        Return how many were handled before.
        """
        self.tallies.shut_gates()
        before = self.tallies.total()
        self.run("fill", spec)
        self.wait(lambda: self.tallies.waiting() == len(processes), processes)
        return before

    @property
    def in_memory(self) -> bool:
        """Whether sender and worker are one process, which puts messages in place before it begins."""
        return self.contender.keeps == "memory"

    def _handled(self, count: int) -> bool:
        self.tallies.open_gates()  # of processes that came since
        return self.tallies.total() >= count

    def wait(self, done: Callable[[], bool], processes: list[Process]) -> None:
        """Wait until it is so; raise RuntimeError when a process ends before, or when it takes too long."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            time.sleep(_LOOK)
            for process in processes:
                process.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.contender.title}: nothing in {PATIENCE:g} s\n{self.output()}")

    def output(self) -> str:
        """Return the end of what its processes wrote."""
        return self._log.read_text(errors="replace")[-2000:]


@contextmanager
def staged(contender: Contender, server: Server) -> Iterator[Stage]:
    """Yield a clean stage."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="abe-router-bench-") as folder:
        yield Stage(contender, server, Path(folder))
