"""The health checks of a backend, which know the routes of the table."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import msgspec

from abe_router.backend import Backend, HealthCheck, HealthResult
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import served_routes

#: The order of results: the worst first.
_ORDER = list(Severity)


class HealthReport(msgspec.Struct, frozen=True):
    """The results of all checks of one backend, the worst first; `backend` is its URL without credentials.

    `chosen_by` says what chose the backend. `ignored` are the codes of results that were left out on request.
    """

    backend: str
    results: tuple[HealthResult, ...]
    ignored: tuple[str, ...] = ()
    chosen_by: str = ""

    @property
    def healthy(self) -> bool:
        """Whether no result is an error or a warning."""
        return not any(result.weakens for result in self.results)


async def check_health(table: RouteTable, backend: Backend, *, ignore: Collection[str] = ()) -> HealthReport:
    """Return what weakens the promise on a backend, without the results whose codes are in `ignore`.

    Write nothing. Raise BackendUnavailable. A subscription is served if the table has its route, or if a
    living worker of any file runs it. With a table that has no routes, no subscription is reported as
    orphaned.
    """
    served = {(route.key, route.group) for route in table.routes} if table.routes else None
    found = await backend.check_health(served)
    # Only a backend that reports orphans has workers to read: a missing or damaged file stays as it is.
    if served is not None and any(result.code == HealthCheck.ORPHANED for result in found):
        with suppress(BackendError):  # without the right to read the workers, the table decides
            names = [name.rpartition("/") for name in await served_routes(backend)]
            found = await backend.check_health({*served, *((key, group) for key, _, group in names)})
    results = sorted(found, key=lambda result: (_ORDER.index(result.severity), result.code))
    return HealthReport(
        backend.url,
        tuple(result for result in results if result.code not in ignore),
        tuple(sorted({result.code for result in results} & set(ignore))),
        table.backend_chosen_by,
    )
