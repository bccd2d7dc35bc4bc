"""What would become of dead letters with the routes of a file: the schemas and `when`, and no handler."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from abe_router.backend import Backend, Dead, DeadLetter, Delivery, SubscriptionName
from abe_router.consumer.disposition import Disposition, DispositionPolicy
from abe_router.consumer.filter import Filter
from abe_router.messages.message import Message
from abe_router.observe.events import Skipped
from abe_router.operations.dead_letters import DeadLetterFilter, read_pages, routes_with_dead_letters
from abe_router.operations.fingerprint import place, shape
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.text import counted

#: Most reasons that are kept of a route.
MOST_REASONS = 10


class TryResult(msgspec.Struct, frozen=True):
    """What would become of the dead letters of one route, by the same checks as a consumer makes.

    `delivered` of them reach the handler, `skipped` do not match `when`, `invalid` break their schema or are
    no JSON, and `dropped` do too, on a route that drops them. If the route is not `in_file`, nothing is known
    of its `unknown` dead letters. `reasons` counts the reasons of those that do not reach the handler.
    """

    route: str
    in_file: bool
    delivered: int = 0
    skipped: int = 0
    invalid: int = 0
    dropped: int = 0
    unknown: int = 0
    reasons: dict[str, int] = {}

    def __str__(self) -> str:
        if not self.in_file:
            return f"{self.unknown:,}: the route is not in the file"
        parts = (
            (self.invalid, "still invalid"),
            (self.dropped, "still invalid, and dropped"),
            (self.delivered, "reaches the handler" if self.delivered == 1 else "reach the handler"),
            (self.skipped, "skipped"),
        )
        return "; ".join(f"{count:,}: {what}" for count, what in parts if count) or counted(0, "dead letter")


async def try_dead_letters(
    backend: Backend,
    table: RouteTable,
    route: SubscriptionName | None = None,
    *,
    where: DeadLetterFilter | None = None,
) -> tuple[TryResult, ...]:
    """Return what would become of the dead letters of a route, or of every route in the backend.

    The payloads are read in small pages, which a thread checks: a payload may have many violations. None is
    part of the result. Without imported handlers, whether a
    payload fits the annotation of its handler is not checked.
    """
    results = []
    for pattern, group in await routes_with_dead_letters(backend, route):
        trial = Trial(f"{pattern}/{group}", table)
        async for page in read_pages(backend, (pattern, group), bodies=True):
            await asyncio.to_thread(trial.add, page, where)
        results.append(trial.result())
    return tuple(results)


class Trial:
    """Checks dead letters of one route, which have their bodies."""

    def __init__(self, name: str, table: RouteTable) -> None:
        self._name = name
        route: Route | None = table.by_name.get(name)
        self._filter: Filter | None = None
        if route is not None:
            policy = DispositionPolicy(route, revision=table.revision, report_handled=False)
            self._filter = Filter(route, policy)
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def add(self, page: Sequence[DeadLetter], where: DeadLetterFilter | None = None) -> None:
        """Check those that satisfy the conditions."""
        for dead_letter in page:
            if where is None or where.accepts(dead_letter):
                self._add(dead_letter)

    def _add(self, dead_letter: DeadLetter) -> None:
        if self._filter is None:
            self._counts["unknown"] += 1
            return
        checked = self._filter.check(_as_new(dead_letter.message))
        if not isinstance(checked, Disposition):
            self._counts["delivered"] += 1
            return
        match checked:
            case Disposition(Dead(dead_letter=dead)):
                count, reason = "invalid", place(dead.reason) or shape(dead.reason.message)
            case Disposition(event=Skipped(why="when")):
                count, reason = "skipped", "`when` does not match"
            case _:
                count, reason = "dropped", "dropped, because the route keeps no invalid message"
        self._counts[count] += 1
        if reason in self._reasons or len(self._reasons) < MOST_REASONS:
            self._reasons[reason] += 1

    def result(self) -> TryResult:
        """Return what would become of all that were checked."""
        return TryResult(
            self._name, self._filter is not None, **self._counts, reasons=dict(self._reasons.most_common())
        )


def _as_new(message: Message) -> Delivery:
    """Return the first delivery of a replayed message."""
    return Delivery(msgspec.structs.replace(message, attempt=1), 1, None)
