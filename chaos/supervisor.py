"""Several workers under one supervisor: `abe-router serve --workers N`."""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from chaos.worker import Worker

#: A log line of a supervisor: number and pid of a worker, and that it runs or how it ended.
_WORKER_EVENT = re.compile(r"worker (?P<number>\d+) \(pid (?P<pid>\d+)\) (?P<what>runs|ended|was killed)")


class Supervisor(Worker):
    """A supervisor with its workers; all of them write to one log."""

    @property
    def children(self) -> Sequence[int]:
        """The pids of the workers that run, according to its log."""
        found: dict[str, int] = {}
        for said in filter(None, map(_worker_event, self.lines("(pid "))):
            if said["what"] == "runs":
                found[said["number"]] = int(said["pid"])
            else:
                found.pop(said["number"], None)
        return [found[number] for number in sorted(found)]

    def kill_child(self, pid: int) -> None:
        """Kill one of its workers."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _by_pid(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines of its workers, each with the pid of its worker number."""
        spans = self._spans()
        index = defaultdict[str, int](int)
        for line in self.lines():
            if (said := _worker_event(line)) and said["what"] != "runs":
                index[said["number"]] += 1
            elif number := str(line.get("worker", "")):
                yield spans[number][index[number]], line

    def _spans(self) -> Mapping[str, Mapping[int, int]]:
        """Return, by number, the pids of its workers in order; 0 if the supervisor logged none."""
        spans = defaultdict[str, dict[int, int]](lambda: defaultdict(int))
        index = defaultdict[str, int](int)
        for said in filter(None, map(_worker_event, self.lines("(pid "))):
            spans[said["number"]][index[said["number"]]] = int(said["pid"])
            index[said["number"]] += said["what"] != "runs"
        return spans


def _worker_event(line: Mapping[str, Any]) -> re.Match[str] | None:
    return None if "worker" in line else _WORKER_EVENT.match(line.get("message", ""))
