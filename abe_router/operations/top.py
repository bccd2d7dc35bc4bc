"""What all routes of a backend do now: rates from the reports of the workers, counts from the backend.

Every worker reports every few seconds what its routes did since its last report. So rates are those of the
last seconds, on any backend and any host.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from abe_router.backend import Backend
from abe_router.observe.tally import HANDLING_BOUNDS
from abe_router.operations.status import read_status
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import ServedRoutes, WorkerReport
from abe_router.runtime.override import Override

#: Of two readings that are closer, in seconds, the growth of a backlog says nothing about the rate.
_SHORTEST = 0.2


class RouteLoad(msgspec.Struct, frozen=True):
    """What one route does. Rates are per second, durations in seconds; None is unknown.

    `accepted` is the rate of new messages: of those that ended, and of the growth of the backlog since the
    reading before. `waiting` is ready or delayed. `p50` and `p99` are of the calls of the handler. `failed`
    is the rate of failed attempts, of which `retried` are tried again. `dead` is the number of dead letters.
    `paused` means by the file or by one of the `overrides` in force.
    """

    route: str
    accepted: float | None = None
    handled: float = 0.0
    waiting: int | None = None
    oldest_at: float | None = None
    in_flight: int | None = None
    p50: float | None = None
    p99: float | None = None
    retried: float = 0.0
    dead: int | None = None
    failed: float = 0.0
    in_file: bool | None = None
    paused: bool = False
    overrides: tuple[Override, ...] = ()
    workers: int = 0


class Load(msgspec.Struct, frozen=True):
    """What all routes do. `at` is the time of the reading, in seconds since the epoch."""

    at: float
    backend: str
    revision: str
    workers: int
    disconnected: int
    routes: tuple[RouteLoad, ...]

    @property
    def handled(self) -> float:
        """The rate of handled messages of all routes."""
        return sum(route.handled for route in self.routes)


class LoadReader:
    """Reads the load of a backend again and again. Each reading is compared with the one before."""

    def __init__(self, table: RouteTable, backend: Backend) -> None:
        self._table, self._backend = table, backend
        self._held: Mapping[str, int] = {}
        self._read_at = 0.0

    async def read(self) -> Load:
        """Return the load; raise BackendError."""
        status = await read_status(self._table, self._backend)
        clock = time.monotonic()
        reports = [report for report in status.workers.values() if report is not None]
        held = {state.route: state.unsettled for state in status.routes if state.seen}
        since = clock - self._read_at if self._read_at else 0.0
        served = status.served
        routes = tuple(self._route(state, reports, served, since) for state in status.routes)
        self._held, self._read_at = held, clock
        return Load(
            at=time.time(),
            backend=status.backend,
            revision=status.revision,
            workers=len(status.workers),
            disconnected=sum(not all(r.connected for r in each.routes.values()) for each in reports),
            routes=routes,
        )

    def _route(
        self,
        state: SubscriptionState,
        reports: Sequence[WorkerReport],
        served: ServedRoutes,
        since: float,
    ) -> RouteLoad:
        name = state.route
        handled = retried = failed = ended = 0.0
        calls = [0] * (len(HANDLING_BOUNDS) + 1)
        for report in reports:
            activity = report.activity.get(name)
            if activity is None or report.interval <= 0:
                continue
            handled += activity.handled / report.interval
            retried += activity.retried / report.interval
            failed += activity.failed / report.interval
            ended += activity.ended / report.interval
            for bucket, count in activity.handling.items():
                if 0 <= bucket < len(calls):
                    calls[bucket] += count
        accepted = None
        if since >= _SHORTEST and state.seen and name in self._held:
            accepted = max(0.0, ended + (state.unsettled - self._held[name]) / since)
        return RouteLoad(
            route=name,
            accepted=accepted,
            handled=handled,
            waiting=state.waiting,
            oldest_at=state.oldest_at,
            in_flight=state.in_flight,
            p50=quantile(calls, 0.5),
            p99=quantile(calls, 0.99),
            retried=retried,
            dead=state.dead,
            failed=failed,
            in_file=state.in_file,
            paused=state.is_paused,
            overrides=state.overrides,
            workers=len(served.routes.get(name, ())),
        )


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration, in seconds, that this share of calls does not exceed; None without calls.

    `counts` are the calls in each bucket of HANDLING_BOUNDS. Within a bucket, durations count as evenly
    spread. For the last bucket, which has no upper bound, it is its lower bound.
    """
    total = sum(counts)
    if not total:
        return None
    left = share * total
    for bucket, count in enumerate(counts):
        if left <= count and count:
            lower = HANDLING_BOUNDS[bucket - 1] if bucket else 0.0
            upper = HANDLING_BOUNDS[bucket] if bucket < len(HANDLING_BOUNDS) else lower
            return lower + (upper - lower) * left / count
        left -= count
    return float(HANDLING_BOUNDS[-1])
