"""The page of all routes: what each does, what waits, and what is wrong, the worst first."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Caller, Role, require
from abe_router.http.dashboard.charts import spark
from abe_router.http.dashboard.formats import LEVELS
from abe_router.http.dashboard.page import PageRoute, Pages
from abe_router.http.sampler import Reading
from abe_router.http.site import Site
from abe_router.operations.condition import WORST_FIRST, Condition
from abe_router.operations.rate_history import RateHistory, RouteFigures
from abe_router.operations.subscriptions import SubscriptionState, subscription_states
from abe_router.operations.worker_watch import WorkerSeen
from abe_router.routing.table import Metadata, RouteTable

#: The sparklines: points, and intervals of the history in each; 30 minutes.
POINTS, EVERY = 30, 4
#: The class of a sparkline by the level of the route.
_SPARKS = {"bad": "hot"}


@dataclass(frozen=True)
class RouteRow:
    """A route as the page shows it. `level` is `ok`, `warn` or `bad`."""

    state: SubscriptionState
    condition: Condition
    figures: RouteFigures
    metadata: Metadata
    line: Markup

    @cached_property
    def key(self) -> str:
        """The key or the pattern."""
        return self.state.route.rpartition("/")[0]

    @cached_property
    def group(self) -> str:
        """The group."""
        return self.state.route.rpartition("/")[2]

    @property
    def level(self) -> str:
        """How bad the condition is."""
        return LEVELS[self.condition.kind]

    @property
    def backlog(self) -> int | None:
        """The number of messages that wait: ready or delayed; None if the backend has not seen the route."""
        return self.state.waiting

    def matches(self, words: Sequence[str]) -> bool:
        """Return whether it satisfies every word of a filter."""
        return all(self._matches(word) for word in words)

    def _matches(self, word: str) -> bool:
        name, colon, value = word.partition(":")
        metadata = self.metadata
        if colon and name in ("state", "owner", "tag"):
            if name == "state":
                return value in (self.condition.kind, self.level)
            return value in ((metadata.owner or "").lower(), *(tag.lower() for tag in metadata.tags))
        texts = (self.state.route, metadata.owner or "", *metadata.tags)
        return any(word in text.lower() for text in texts)


#: The columns by which the page sorts: name, heading, and what is compared. Numbers begin with the greatest.
_NUMBERS: Mapping[str, Callable[[RouteRow], float]] = {
    "rate": lambda row: row.figures.rate,
    "backlog": lambda row: row.backlog or 0,
    "oldest": lambda row: -(row.state.oldest_at or time.time()),
    "p50": lambda row: row.figures.p50 or 0.0,
    "p99": lambda row: row.figures.p99 or 0.0,
    "retries": lambda row: row.figures.retried,
    "dead": lambda row: row.state.dead or 0,
}


def sort_rows(rows: Sequence[RouteRow], column: str, *, ascending: bool) -> list[RouteRow]:
    """Return the rows in the order of a column; of equal ones, by name."""
    by_name = sorted(rows, key=lambda row: row.state.route, reverse=column == "route" and not ascending)
    if column == "route":
        return by_name
    if column == "owner":
        return sorted(by_name, key=lambda row: row.metadata.owner or "\uffff", reverse=not ascending)
    if column in _NUMBERS:
        return sorted(by_name, key=_NUMBERS[column], reverse=not ascending)
    worst = {kind: number for number, kind in enumerate(WORST_FIRST)}
    return sorted(by_name, key=lambda row: worst[row.condition.kind], reverse=ascending)


@dataclass(frozen=True)
class Summary:
    """All routes together. `oldest` is the route of the message that waits longest, which is not paused."""

    rate: float
    backlog: int
    paused: int
    oldest: RouteRow | None
    dead: int
    dead_lately: int
    retried: int

    @classmethod
    def of(cls, rows: Sequence[RouteRow]) -> Summary:
        """Return the sums of rows."""
        waiting = [row for row in rows if row.state.oldest_at is not None and not row.state.is_paused]
        return cls(
            rate=sum(row.figures.rate for row in rows),
            backlog=sum(row.backlog or 0 for row in rows),
            paused=sum(row.backlog or 0 for row in rows if row.state.is_paused),
            oldest=min(waiting, key=lambda row: row.state.oldest_at or 0.0, default=None),
            dead=sum(row.state.dead or 0 for row in rows),
            dead_lately=sum(row.figures.dead for row in rows),
            retried=sum(row.figures.retried for row in rows),
        )


def route_rows(site: Site, caller: Caller, states: Sequence[SubscriptionState]) -> list[RouteRow]:
    """Return the routes that a caller may see."""
    sampler, table = site.sampler, site.source.table
    allowed = {state.route: state for state in states if caller.allows_route(Role.VIEWER, state.route)}
    conditions = sampler.conditions(allowed.values())
    return [
        RouteRow(
            state,
            conditions[name],
            sampler.history.figures(name),
            table.metadata_of(name) if name in table.by_name else Metadata(),
            _line(sampler.history, name, conditions[name]),
        )
        for name, state in allowed.items()
    ]


def known_states(table: RouteTable, reading: Reading) -> Sequence[SubscriptionState]:
    """Return the states of a reading; without one, the routes of the table, of which nothing is known."""
    return reading.status.routes if reading.status else subscription_states(table, ())


def _line(history: RateHistory, name: str, condition: Condition) -> Markup:
    values = history.series(name, "handled", POINTS, EVERY)
    label = f"{name.replace('/', ' ')}, messages a second in 30 minutes, now {history.figures(name).rate:.3g}"
    style = "off" if condition.kind == "paused" else _SPARKS.get(LEVELS[condition.kind], "")
    return spark(values, label, style)


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the page."""

    async def route_list(request: Request) -> Response:
        caller = require(request, Role.VIEWER)
        reading = await site.sampler.read()
        query = request.query_params
        column, ascending = query.get("sort", "state"), query.get("order") == "asc"
        words = query.get("q", "").lower().split()

        def rows() -> dict[str, Any]:
            found = route_rows(site, caller, known_states(site.source.table, reading))
            shown = [row for row in found if row.matches(words)] if words else found
            return {
                "rows": sort_rows(shown, column, ascending=ascending),
                "all_rows": len(found),
                "summary": Summary.of(found),
            }

        return await pages.render(
            request,
            "routes.html",
            title="Routes",
            make=rows,
            reading=reading,
            column=column,
            ascending=ascending,
            trouble=site.sampler.trouble,
            workers=None if caller.is_limited else WorkersSummary.of(site),
            now=time.time(),
        )

    return [PageRoute("/routes", route_list, Role.VIEWER)]


@dataclass(frozen=True)
class WorkersSummary:
    """The workers of the backend: those that report, and all that are wanted.

    `rejected` has the workers that have rejected the edit on the disk. `warnings` is the number of warnings
    of the table that they run.
    """

    running: int
    wanted: int
    rejected: Sequence[WorkerSeen]
    warnings: int

    @classmethod
    def of(cls, site: Site) -> WorkersSummary:
        """Return what the sampler and the supervisor know."""
        seen = site.sampler.watch.workers()
        running = sum(not worker.is_silent for worker in seen)
        state = site.source.workers
        wanted = max(len(seen), state.wanted if state else 0)
        rejected = [worker for worker in seen if worker.report and worker.report.rejected]
        warnings = max((worker.report.warnings for worker in seen if worker.report), default=0)
        return cls(running, wanted, rejected, warnings)
