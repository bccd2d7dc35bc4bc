"""The health of a running router in detail: the backend, the last edit, each worker and each route.

Each part has its `problems` as text, so that a person need not know which combination of numbers is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState, not_in_file
from abe_router.routing.table import RouteTable
from abe_router.runtime.activity import RouteActivity
from abe_router.runtime.edit_files import absolute_path
from abe_router.runtime.edit_record import EditRecord, EditState
from abe_router.runtime.heartbeat import DiagnosticReport, ServedRoutes, WorkerReport
from abe_router.text import counted

#: A route is failing if more than this part of its attempts fail.
FAILING = 0.2


class BackendHealth(msgspec.Struct, frozen=True):
    """The backend: its URL without credentials, and why it cannot be asked, or an empty text."""

    url: str
    problem: str = ""


class EditHealth(msgspec.Struct, frozen=True):
    """The last edit of the routes file. `diagnostic` is its first one, None if it was accepted."""

    number: int
    state: EditState
    revision: str
    offered_at: float
    diagnostic: DiagnosticReport | None
    diagnostics: int


class WorkerHealth(msgspec.Struct, frozen=True):
    """A worker of any host. Without a readable report, only its name is known."""

    name: str
    host: str = ""
    pid: int = 0
    number: int = 0
    started_at: float = 0.0
    revision: str = ""
    connected: bool = True
    problems: tuple[str, ...] = ()


class RouteHealth(msgspec.Struct, frozen=True):
    """A route. `workers` run it, and it is `connected` if all of them reach the backend.

    `failed` of its `attempts` in the last seconds, as the workers report them; it is `failing` if these are
    more than a fifth. `dead` is the number of its dead letters, None if the backend does not have it.
    """

    route: str
    workers: int
    connected: bool
    paused: bool
    failing: bool
    attempts: int
    failed: int
    dead: int | None
    problems: tuple[str, ...] = ()


class HealthDetail(msgspec.Struct, frozen=True):
    """Every part of a router. `edit` is None without a history of edits.

    Without an answer of the backend, there are neither `workers` nor `routes`.
    """

    backend: BackendHealth
    edit: EditHealth | None = None
    workers: tuple[WorkerHealth, ...] = ()
    routes: tuple[RouteHealth, ...] = ()


def health_detail(status: Status, edits: Sequence[EditRecord], table: RouteTable) -> HealthDetail:
    """Return the health of every part. `edits` are those of the backend, oldest first."""
    reports = [worker for worker in status.workers.values() if worker is not None]
    served = status.served
    return HealthDetail(
        BackendHealth(status.backend),
        _last_edit(edits, table),
        tuple(_worker(name, report, status.revision) for name, report in status.workers.items()),
        tuple(_route(state, reports, served) for state in status.routes),
    )


def _last_edit(edits: Sequence[EditRecord], table: RouteTable) -> EditHealth | None:
    """Return the last edit of the file of a table; of any file, if the backend has none of this one."""
    path = "" if table.path is None else absolute_path(table.path)
    found = [edit for edit in edits if edit.path == path] or edits
    if not found:
        return None
    last = found[-1]
    first = next(iter(last.diagnostics), None)
    return EditHealth(last.number, last.state, last.revision, last.offered_at, first, len(last.diagnostics))


def _worker(name: str, report: WorkerReport | None, revision: str) -> WorkerHealth:
    if report is None:
        return WorkerHealth(name, problems=("its report is of another version",))
    disconnected = [route for route, state in report.routes.items() if not state.connected]
    problems = []
    if disconnected:
        problems.append(f"{counted(len(disconnected), 'route')} cannot reach the backend")
    if report.rejected:
        first = report.rejected[0]
        problems.append(f"rejected the last edit: {first.path}:{first.line}: {first.message}")
    if revision not in ("", report.revision):
        problems.append("runs another revision of the routes file")
    if report.outdated:
        problems.append(f"the code has changed since it started: {', '.join(report.outdated)}")
    return WorkerHealth(
        name,
        report.host,
        report.pid,
        report.number,
        report.started_at,
        report.revision,
        not disconnected,
        tuple(problems),
    )


def _route(state: SubscriptionState, reports: Collection[WorkerReport], served: ServedRoutes) -> RouteHealth:
    running = [report.routes[state.route] for report in served.reports(state.route)]
    activity = [report.activity.get(state.route, RouteActivity()) for report in reports]
    failed = sum(each.failed for each in activity)
    attempts = failed + sum(each.handled for each in activity)
    disconnected = sum(not each.connected for each in running)
    failing = failed > FAILING * attempts
    problems = []
    if state.in_file is False:
        problems.append(f"is {not_in_file(state.route, served)}")
    elif not running:
        problems.append("no worker runs it")
    if disconnected:
        problems.append(f"{disconnected} of {counted(len(running), 'worker')} cannot reach the backend")
    if state.paused:
        problems.append("is paused in the routes file")
    problems += [f"is {override.describe()}" for override in state.overrides]
    if failing:
        problems.append(f"{failed:,} of the last {counted(attempts, 'attempt')} failed")
    if state.dead:
        problems.append(f"has {counted(state.dead, 'dead letter')}")
    return RouteHealth(
        state.route,
        len(running),
        not disconnected,
        state.is_paused,
        failing,
        attempts,
        failed,
        state.dead,
        tuple(problems),
    )
