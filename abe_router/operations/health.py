"""The health checks of a backend, which know the routes of the table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import msgspec

from abe_router.backend import Backend, HealthCheck, HealthResult, SubscriptionName
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError
from abe_router.operations.access import missing_file
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import ServedRoutes, served_routes
from abe_router.text import counted

#: The order of results: the worst first.
_ORDER = list(Severity)
#: What is checked before a file is opened.
_FILE = (HealthCheck.FILE, HealthCheck.DAMAGED)


class HealthReport(msgspec.Struct, frozen=True):
    """The results of all checks of one backend, the worst first; `backend` is its URL without credentials.

    `chosen_by` says what chose the backend. `ignored` are the codes of results that were left out on request.
    `served` has the file, the host and the process of each worker of a route, for every route that living
    workers run.
    """

    backend: str
    results: tuple[HealthResult, ...]
    ignored: tuple[str, ...] = ()
    chosen_by: str = ""
    served: Mapping[str, Sequence[str]] = {}

    @property
    def healthy(self) -> bool:
        """Whether no result is an error or a warning."""
        return not any(result.weakens for result in self.results)


async def check_health(table: RouteTable, backend: Backend, *, ignore: Collection[str] = ()) -> HealthReport:
    """Return what weakens the promise on a backend, without the results whose codes are in `ignore`.

    Write nothing. Raise BackendUnavailable. A subscription is served if the table has its route, or if a
    living worker of any file runs it. With a table that has no routes, or while the report of a worker cannot
    be read, no subscription is reported as orphaned.
    """
    known = {(route.key, route.group) for route in table.routes} if table.routes else None
    found = list(await backend.check_health(known))
    running = ServedRoutes({}, {}, ())
    broken = any(result.weakens and result.code in _FILE for result in found)
    if not (missing_file(backend) or broken):  # such a file stays as it is
        with suppress(BackendError):  # without the right to read the workers, the table decides
            running = await served_routes(backend)
    if any(result.code == HealthCheck.ORPHANED for result in found):
        served = {*(known or ()), *map(_subscription, running.routes)}
        if running.unreadable:
            served.update((status.pattern, status.group) for status in await backend.status())
        found = list(await backend.check_health(served))
    if running.unreadable:
        found.append(_unreadable(running.unreadable))
    results = sorted(found, key=lambda result: (_ORDER.index(result.severity), result.code))
    return HealthReport(
        backend.url,
        tuple(result for result in results if result.code not in ignore),
        tuple(sorted({result.code for result in results} & set(ignore))),
        chosen_by=table.backend_chosen_by,
        served={route: running.names(route) for route in sorted(running.routes)},
    )


def _subscription(route: str) -> SubscriptionName:
    pattern, _, group = route.rpartition("/")
    return pattern, group


def _unreadable(workers: Sequence[str]) -> HealthResult:
    return HealthResult(
        HealthCheck.UNREADABLE,
        Severity.WARNING,
        f"the report of {counted(len(workers), 'worker')} cannot be read: {', '.join(workers)}",
        "it may run any route, so `drop` and `dead purge` delete nothing without `--force`",
        "let all workers of a backend run the same version",
    )
