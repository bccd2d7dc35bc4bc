"""What the routes of a worker did in the last seconds: the part of its heartbeat that `top` shows.

Only routes that did something are in it, so that a thousand idle routes cost nothing. Each report stands for
itself: a reader that misses one shows the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from abe_router.observe.tally import RouteCounts

#: The outcomes of `RouteCounts` that are reported, each as a field of `RouteActivity`.
_OUTCOMES = ("handled", "skipped", "retried", "dead", "dropped", "lease_lost")


class RouteActivity(msgspec.Struct, frozen=True, omit_defaults=True):
    """The numbers of deliveries by outcome, as in `RouteCounts`.

    `handling` counts the calls of the handler by their duration: the number of a bucket of `HANDLING_BOUNDS`,
    and the calls in it.
    """

    handled: int = 0
    skipped: int = 0
    retried: int = 0
    dead: int = 0
    dropped: int = 0
    lease_lost: int = 0
    handling: Mapping[int, int] = {}

    @property
    def ended(self) -> int:
        """The number of messages that left the subscription's backlog."""
        return self.handled + self.skipped + self.dead + self.dropped

    @property
    def failed(self) -> int:
        """The number of attempts that failed."""
        return self.retried + self.dead + self.dropped


class ActivityReporter:
    """Compares the counts of the routes with those of the last report. `counts` returns them."""

    def __init__(
        self, counts: Callable[[], Mapping[str, RouteCounts]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts, self._clock = counts, clock
        self._last, self._last_at = counts(), clock()

    def report(self) -> tuple[float, Mapping[str, RouteActivity]]:
        """Return the seconds since the last report, and what the routes did in them."""
        counts, now = self._counts(), self._clock()
        last, self._last = self._last, counts
        seconds, self._last_at = now - self._last_at, now
        # A route that is idle returns the same counts as before.
        moved = ((name, each) for name, each in counts.items() if each is not last.get(name))
        found = {name: _difference(each, last.get(name)) for name, each in moved}
        return seconds, {name: activity for name, activity in found.items() if activity != _NOTHING}


_NOTHING = RouteActivity()


def _difference(now: RouteCounts, before: RouteCounts | None) -> RouteActivity:
    if before is None or before.since != now.since:  # the route was added, perhaps again
        before = RouteCounts()
    if now.outcomes == before.outcomes and now.handling == before.handling:
        return _NOTHING
    outcomes = {name: now.total(name) - before.total(name) for name in _OUTCOMES}
    return RouteActivity(**outcomes, handling=_changed(now.handling, before.handling))


def _changed(now: Sequence[int], before: Sequence[int]) -> dict[int, int]:
    pairs = enumerate(zip(now, before, strict=True))
    return {bucket: count - earlier for bucket, (count, earlier) in pairs if count != earlier}
