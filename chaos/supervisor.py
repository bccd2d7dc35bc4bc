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

#: What a supervisor says of a worker: its number, its pid, and that it runs or how it ended.
_WORKER_EVENT = re.compile(r"worker (?P<number>\d+) \(pid (?P<pid>\d+)\) (?P<what>runs|ended|was killed)")


class Supervisor(Worker):
    """A supervisor with its workers, all of which write to one log."""

    @property
    def children(self) -> Sequence[int]:
        """The pids of the workers that run, as far as it has told."""
        found: dict[str, int] = {}
        for said in filter(None, map(_worker_event, self.lines("(pid "))):
            if said["what"] == "runs":
                found[said["number"]] = int(said["pid"])
            else:
                found.pop(said["number"], None)
        return [found[number] for number in sorted(found)]

    def kill_child(self, pid: int) -> None:
        """End one of its workers without a warning."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _by_pid(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield what its workers logged: a line has a number, and the supervisor tells whose it was."""
        spans = self._spans()
        place = defaultdict[str, int](int)
        for line in self.lines():
            if (said := _worker_event(line)) and said["what"] != "runs":
                place[said["number"]] += 1
            elif number := str(line.get("worker", "")):
                yield spans[number][place[number]], line

    def _spans(self) -> Mapping[str, Mapping[int, int]]:
        """Return, by number, the pids of the workers that had it, one after the other; 0 for untold."""
        spans = defaultdict[str, dict[int, int]](lambda: defaultdict(int))
        place = defaultdict[str, int](int)
        for said in filter(None, map(_worker_event, self.lines("(pid "))):
            spans[said["number"]][place[said["number"]]] = int(said["pid"])
            place[said["number"]] += said["what"] != "runs"
        return spans


def _worker_event(line: Mapping[str, Any]) -> re.Match[str] | None:
    return None if "worker" in line else _WORKER_EVENT.match(line.get("message", ""))
