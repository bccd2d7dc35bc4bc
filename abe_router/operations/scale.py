"""How much work there is, in a few numbers from which an autoscaler derives how many workers to run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec

from abe_router.messages.pattern import matches
from abe_router.observe.tally import RouteCounts
from abe_router.operations.subscriptions import SubscriptionState


class Scale(msgspec.Struct, frozen=True):
    """The work of some routes, on all hosts.

    `backlog` is the number of messages that are ready or in flight, so that a long run of a handler is not
    scaled away. `delayed` wait for a retry. `oldest_age_seconds` is the age of the oldest ready message, 0 if
    none is ready. `next_due_seconds` is the time until the first retry is due, or None. `busy_fraction` is
    the part of the handlers that run now, of the workers of this router alone; None if it has none.
    """

    backlog: int
    delayed: int
    oldest_age_seconds: float
    next_due_seconds: float | None
    busy_fraction: float | None


def scale_of(
    states: Iterable[SubscriptionState],
    counts: Mapping[str, RouteCounts],
    pattern: str = "#",
    *,
    now: float | None = None,
) -> Scale:
    """Return the work of the routes in the file whose key matches a pattern.

    Of a route with a pattern, the words count as they stand: `orders.*` matches `orders.#`. `now` is in
    seconds since the epoch. A paused route counts with what is in flight alone: more workers do not help it.
    """
    now = time.time() if now is None else now
    found = [each for each in states if each.in_file is not False and _is_under(pattern, each.route)]
    working = [each for each in found if not each.is_paused]
    ages = [now - each.oldest_at for each in working if each.oldest_at is not None]
    due = [each.next_due_at - now for each in working if each.next_due_at is not None]
    of_routes = [of_route for name, of_route in counts.items() if _is_under(pattern, name)]
    slots = sum(each.slots for each in of_routes)
    return Scale(
        backlog=sum(each.ready or 0 for each in working) + sum(each.in_flight or 0 for each in found),
        delayed=sum(each.delayed or 0 for each in working),
        oldest_age_seconds=max(0.0, *ages) if ages else 0.0,
        next_due_seconds=max(0.0, min(due)) if due else None,
        busy_fraction=round(sum(each.running for each in of_routes) / slots, 3) if slots else None,
    )


def _is_under(pattern: str, route: str) -> bool:
    return matches(pattern, route.rpartition("/")[0])
