"""Heartbeats: what a running router reports about itself, and where `status` and other routers read it.

Reports are JSON values in the bucket `workers` of the backend's key-value store. They expire, so that a
worker that is killed disappears without cleaning up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from abe_router.backend import Backend, Entry, read_stored
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.runtime.activity import RouteActivity
from abe_router.runtime.edit_files import absolute_path
from abe_router.text import json_safe, mask_credentials

#: The bucket that holds one entry for each running worker.
WORKERS = "workers"
#: The bucket of a backend that a routes file names now, while its workers still serve another one.
RESTARTS = "restarts"
#: The bucket that holds one entry for each route that is being deleted. A worker reports a route, then looks
#: here, and subscribes only when there is no entry. What deletes a route stores the entry, then looks for
#: reports. So at least one of the two sees the other.
DELETIONS = "deletions"
#: Interval of the reports, and how long one is valid, in seconds.
EVERY, TTL = 3.0, 10.0


class RouteState(msgspec.Struct, frozen=True):
    """The state of one route of a worker."""

    in_flight: int = 0
    connected: bool = True


class ReloadReport(msgspec.Struct, frozen=True):
    """The result of a worker's last reload; `seconds` is how long it took."""

    number: int = 0
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    kept: int = 0
    seconds: float = 0.0


class DiagnosticReport(msgspec.Struct, frozen=True):
    """One diagnostic of an edit that a worker has rejected; the fields are those of `Diagnostic`."""

    path: str
    line: int
    column: int
    code: str
    message: str
    severity: str = "error"
    label: str = ""
    hint: str = ""
    width: int = 1

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> DiagnosticReport:
        """Return the report of a diagnostic, without credentials."""
        return cls(
            path=json_safe(str(diagnostic.path)),
            line=diagnostic.line,
            column=diagnostic.column,
            code=diagnostic.code,
            message=json_safe(mask_credentials(diagnostic.message)),
            severity=diagnostic.severity,
            label=json_safe(mask_credentials(diagnostic.label)),
            hint=json_safe(mask_credentials(diagnostic.hint)),
            width=diagnostic.width,
        )

    def diagnostic(self) -> Diagnostic:
        """Return what was reported. A severity that this version does not know is an error."""
        known = Severity(self.severity) if self.severity in set(Severity) else Severity.ERROR
        return Diagnostic(
            Path(self.path),
            self.line,
            self.column,
            self.code,
            known,
            self.message,
            self.label,
            self.hint,
            self.width,
        )


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker reports about itself.

    `started_at` is in seconds since the epoch. `revision` is that of the table in force. `number` is the
    worker's number under its supervisor, 0 if it has none. `rejected` are the diagnostics of the last edit,
    if it was rejected. `activity` is what the routes that did something did in the last `interval` seconds.
    `overrides` maps the names of the overrides in force to the revisions of their entries. `outdated` are the
    files of code that have changed since the worker loaded them. `warnings` is the number of warnings of the
    table in force. In paths and messages, everything that JSON cannot carry is escaped.
    """

    host: str
    pid: int
    started_at: float
    revision: str
    number: int = 0
    path: str | None = None
    routes: Mapping[str, RouteState] = {}
    reload: ReloadReport | None = None
    rejected: tuple[DiagnosticReport, ...] = ()
    interval: float = 0.0
    activity: Mapping[str, RouteActivity] = {}
    overrides: Mapping[str, int] = {}
    outdated: tuple[str, ...] = ()
    warnings: int = 0


class PendingRestart(msgspec.Struct, frozen=True):
    """A worker that still serves `backend`, a URL without credentials, after an edit of the file `path`."""

    host: str
    pid: int
    path: str
    backend: str


async def pending_restarts(backend: Backend, path: Path) -> Sequence[PendingRestart]:
    """Return the workers of a routes file that serve another backend until they are restarted."""
    if not backend.features.key_value:
        return ()
    entries = (await backend.entries(RESTARTS)).values()
    found = [read_stored(entry.value, PendingRestart) for entry in entries]
    return [each for each in found if each is not None and each.path == absolute_path(path)]


def decode_report(value: bytes) -> WorkerReport | None:
    """Return a worker's report; None if another program or version wrote it and it cannot be read."""
    return read_stored(value, WorkerReport)


def decode_reports(entries: Mapping[str, Entry]) -> dict[str, WorkerReport]:
    """Return the readable reports among the entries of the bucket, by the name of the worker."""
    reports = {name: decode_report(entry.value) for name, entry in entries.items()}
    return {name: report for name, report in reports.items() if report is not None}


class ServedRoutes(msgspec.Struct, frozen=True):
    """Which of the `workers` of a backend run which routes, of any routes file.

    `routes` maps each route to the names of its workers. `unreadable` are the workers whose reports are of
    another version: each of them may run any route.
    """

    workers: Mapping[str, WorkerReport | None]
    routes: Mapping[str, Sequence[str]]
    unreadable: Sequence[str]

    @classmethod
    def of(cls, workers: Mapping[str, WorkerReport | None]) -> ServedRoutes:
        """Return what the last reports of workers say."""
        routes: dict[str, list[str]] = {}
        for name, report in workers.items():
            for route in () if report is None else report.routes:
                routes.setdefault(route, []).append(name)
        return cls(workers, routes, [name for name, report in workers.items() if report is None])

    def reports(self, route: str) -> Sequence[WorkerReport]:
        """Return the reports of the workers that run a route."""
        found = (self.workers[name] for name in self.routes.get(route, ()))
        return [report for report in found if report is not None]

    def names(self, route: str) -> Sequence[str]:
        """Return the file, the host and the process of each worker that runs a route."""
        return [
            f"{report.path or 'no file'} on {report.host}, process {report.pid}"
            for report in self.reports(route)
        ]


async def read_workers(backend: Backend) -> Mapping[str, WorkerReport | None]:
    """Return the last report of every living worker, by worker; none without a key-value store.

    A worker lives until its report expires. None is a report of another version of this package.
    """
    if not backend.features.key_value:
        return {}
    entries = await backend.entries(WORKERS)
    return {name: decode_report(entry.value) for name, entry in sorted(entries.items())}


async def served_routes(backend: Backend) -> ServedRoutes:
    """Return which living workers run which routes, of any routes file on the same backend and prefix."""
    return ServedRoutes.of(await read_workers(backend))
