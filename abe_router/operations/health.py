"""The health checks of a backend, which know the routes of the table."""

from __future__ import annotations

import msgspec

from abe_router.backend import Backend, HealthResult
from abe_router.diagnostic import Severity
from abe_router.routing.table import RouteTable

#: The order of results: the worst first.
_ORDER = list(Severity)


class HealthReport(msgspec.Struct, frozen=True):
    """The results of all checks of one backend, the worst first; `backend` is its URL without credentials."""

    backend: str
    results: tuple[HealthResult, ...]

    @property
    def healthy(self) -> bool:
        """Whether no result is an error or a warning."""
        return not any(result.weakens for result in self.results)


async def check_health(table: RouteTable, backend: Backend) -> HealthReport:
    """Return what weakens the promise on a backend. Write nothing. Raise BackendUnavailable.

    The subscriptions of the table's routes count as served. With a table that has no
    routes, no subscription is reported as orphaned.
    """
    served = {(route.key, route.group) for route in table.routes} if table.routes else None
    results = await backend.check_health(served)
    return HealthReport(
        backend.url, tuple(sorted(results, key=lambda result: (_ORDER.index(result.severity), result.code)))
    )
