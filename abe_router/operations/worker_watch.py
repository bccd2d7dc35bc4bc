"""The workers of a backend as one observer sees them: which report, which are silent, and which have left.

States of a worker: *reporting*, while each report follows the last within `SILENT_AFTER` seconds; *silent*,
when it does not; and *gone*. A worker that ends deletes its report, so a report that disappears early means
that the worker has left. The report of a killed worker expires; the worker is shown as silent until another
one of its host takes its number, or for `REMEMBERED` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from abe_router.backend import Entry
from abe_router.runtime.heartbeat import EVERY, TTL, ServedRoutes, WorkerReport, decode_report

#: A worker is silent this long after its last report, in seconds: two reports are missing.
SILENT_AFTER = 2.5 * EVERY
#: How long a worker that was killed is shown, in seconds.
REMEMBERED = 120.0


class WorkerSeen(msgspec.Struct, frozen=True):
    """A worker with its last report, None if that is of another version; `age` is that of it, in seconds."""

    name: str
    report: WorkerReport | None
    age: float

    @property
    def is_silent(self) -> bool:
        """Whether it has missed its last reports."""
        return self.age > SILENT_AFTER

    @property
    def label(self) -> str:
        """What people call it: `worker 2`, or its host and its process."""
        if self.report is None:
            return self.name
        if self.report.number:
            return f"worker {self.report.number}"
        return f"{self.report.host}:{self.report.pid}"


class _Known(msgspec.Struct):
    revision: int
    report: WorkerReport | None
    seen_at: float


class WorkerWatch:
    """Follows the workers. `clock` returns a time in seconds that never falls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._updated_at = clock()

    def update(self, entries: Mapping[str, Entry]) -> Sequence[WorkerReport]:
        """Take the entries of the bucket of workers; return the reports that are new."""
        now, new = self._clock(), []
        self._updated_at = now
        for name, entry in entries.items():
            known = self._known.get(name)
            if known is None or known.revision != entry.revision:
                report = decode_report(entry.value)
                self._known[name] = _Known(entry.revision, report, now)
                if report is not None:
                    new.append(report)
        for name in self._known.keys() - entries.keys():
            age = now - self._known[name].seen_at
            if age < TTL - EVERY or age > REMEMBERED or self._is_replaced(name, entries):
                del self._known[name]
        return new

    def workers(self) -> Sequence[WorkerSeen]:
        """Return the workers, by host and number. Ages are those of the last update."""
        now = self._updated_at
        found = [WorkerSeen(name, known.report, now - known.seen_at) for name, known in self._known.items()]
        return sorted(found, key=_order)

    def served(self) -> ServedRoutes:
        """Return which of these workers run which routes."""
        return ServedRoutes.of({name: known.report for name, known in self._known.items()})

    @property
    def rejected(self) -> bool:
        """Whether a worker has rejected the edit on the disk."""
        return any(known.report and known.report.rejected for known in self._known.values())

    def _is_replaced(self, name: str, entries: Mapping[str, Entry]) -> bool:
        former = self._known[name].report
        return former is not None and any(
            other.report is not None
            and (other.report.host, other.report.number) == (former.host, former.number)
            and other.report.started_at > former.started_at
            for each, other in self._known.items()
            if each in entries
        )


def _order(worker: WorkerSeen) -> tuple[str, int, str]:
    report = worker.report
    return (report.host, report.number, worker.name) if report else ("", 0, worker.name)
