"""The environment of a run: an empty server, an empty folder, and the processes of a contender."""

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

#: Longest wait for anything, in seconds.
PATIENCE = 60.0
#: Interval of checks, in seconds.
_LOOK = 0.002


class Testbed:
    """The environment of one run of a contender. The context manager `testbed_for` makes one."""

    def __init__(self, contender: Contender, server: Server, folder: Path) -> None:
        self.contender, self.server, self.folder = contender, server, folder
        self.tallies = Tallies(folder)
        self._python = python_of(contender.pins)
        self._log = folder / "output.log"

    def spec(self, **options: Any) -> Spec:
        """Return the specification for a process of the contender."""
        urls = {
            "redis": self.server.url,
            "sqlite": f"sqlite:///{self.folder}/bench.db",
            "memory": "memory://",
        }
        url = urls[self.contender.storage]
        return Spec(str(self.folder), url, uvloop=self.contender.uvloop, **options)

    def start(self, role: str, spec: Spec) -> Process:
        """Start a process; a context manager ends it."""
        module = f"bench.contenders.{self.contender.module}"
        return Process([self._python, "-m", module, role], spec.environment(), self._log)

    def run(self, role: str, spec: Spec) -> Mapping[str, float]:
        """Run a process to its end; return the last JSON object that it printed, or an empty one."""
        with self.start(role, spec) as process:
            process.wait()
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else {}

    @contextmanager
    def workers(self, spec: Spec, count: int = 1) -> Iterator[list[Process]]:
        """Start workers and wait until every route has handled a message; their gates are then open."""
        warm = spec if self.in_memory else replace(spec, count=spec.routes)
        if not self.in_memory:
            self.run("fill", warm)
        processes = [self.start("work", warm) for _ in range(count)]
        try:
            self.wait(lambda: self.tallies.waiting() > 0, processes)
            self.tallies.open_gates()
            if not self.in_memory:
                self.wait(lambda: self._handled(warm.count * warm.groups), processes)
            yield processes
        finally:
            for process in processes:
                process.end()

    def hold(self, spec: Spec, processes: list[Process]) -> int:
        """Shut the gates, publish the messages of `spec`, and wait until every process has one.

        Return how many were handled before.
        """
        self.tallies.shut_gates()
        before = self.tallies.total()
        self.run("fill", spec)
        self.wait(lambda: self.tallies.waiting() == len(processes), processes)
        return before

    @property
    def in_memory(self) -> bool:
        """Whether publisher and worker share a process, which publishes before it consumes."""
        return self.contender.storage == "memory"

    def _handled(self, count: int) -> bool:
        self.tallies.open_gates()  # processes may have started since
        return self.tallies.total() >= count

    def wait(self, done: Callable[[], bool], processes: list[Process]) -> None:
        """Wait until `done` returns True; raise RuntimeError if a process ends before, or after a timeout."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            time.sleep(_LOOK)
            for process in processes:
                process.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.contender.title}: nothing in {PATIENCE:g} s\n{self.output()}")

    def output(self) -> str:
        """Return the end of the output of its processes."""
        return self._log.read_text(errors="replace")[-2000:]


@contextmanager
def testbed_for(contender: Contender, server: Server) -> Iterator[Testbed]:
    """Yield an empty testbed."""
    server.clear()
    with tempfile.TemporaryDirectory(prefix="abe-router-bench-") as folder:
        yield Testbed(contender, server, Path(folder))
