"""What the routes did in the last hour, in memory: rates, handling times, failures and backlogs.

Time is divided into intervals of `INTERVAL` seconds since the epoch, and all routes share their position in
rings of `KEPT` intervals. A route that did nothing for an hour is forgotten. So the memory is bounded by the
number of routes: 7 KB each.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from abe_router.observe.tally import HANDLING_BOUNDS
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.operations.top import quantile
from abe_router.runtime.activity import RouteActivity

#: Length of an interval, in seconds, and how many are kept: an hour.
INTERVAL, KEPT = 15, 240
#: Intervals of "now", besides the one that has just begun: figures are of the last minute.
RECENT = 4
#: A route fails if this share of its attempts failed, and at least so many, in an interval or a minute.
FAILING_SHARE, FAILING_LEAST = 0.2, 3

Figure = Literal["handled", "failed", "retried", "dead", "p50", "p99", "backlog"]
_COUNTS: tuple[Figure, ...] = ("handled", "failed", "retried", "dead")
_NONE = math.nan


class RouteFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a route does now: in the last minute, if nothing else is said.

    `rate` is of handled messages and `failed` of failed attempts, each a second. `p50` and `p99` are of the
    calls of the handler, in seconds, and `calls` counts them by the buckets of HANDLING_BOUNDS. `failing` is
    the share of attempts that failed if the route fails, and `failing_for` how long it has done so, in
    seconds. `growth` is that of the backlog, in messages a second. `retried` and `dead` are of the last hour.
    """

    rate: float = 0.0
    failed: float = 0.0
    p50: float | None = None
    p99: float | None = None
    failing: float = 0.0
    failing_for: float = 0.0
    growth: float = 0.0
    retried: int = 0
    dead: int = 0
    calls: tuple[int, ...] = ()


_NOTHING = RouteFigures()


class _Rings:
    """The figures of one route, and the calls of its handler in the latest intervals."""

    __slots__ = ("calls", "figures", "last")

    def __init__(self) -> None:
        self.figures: dict[Figure, array[float]] = {
            **{name: array("f", bytes(4 * KEPT)) for name in _COUNTS},
            "p50": array("f", [_NONE]) * KEPT,
            "p99": array("f", [_NONE]) * KEPT,
            "backlog": array("f", [_NONE]) * KEPT,
        }
        self.calls: deque[list[int]] = deque([_no_calls()], RECENT + 1)
        self.last = 0

    def begin(self, at: int) -> None:
        """Forget what the ring has at a position, and close the interval before."""
        before = (at - 1) % KEPT
        calls = self.calls[-1]
        self.figures["p50"][before] = quantile(calls, 0.5) or _NONE
        self.figures["p99"][before] = quantile(calls, 0.99) or _NONE
        for name, ring in self.figures.items():
            ring[at] = 0.0 if name in _COUNTS else _NONE
        self.calls.append(_no_calls())


class RateHistory:
    """Keeps the last hour of all routes. `clock` returns the time in seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._routes: dict[str, _Rings] = {}
        self._interval = int(clock() // INTERVAL)
        self._began_at = self._now = clock()
        self._found: dict[str, RouteFigures] = {}

    @property
    def began_at(self) -> float:
        """When it was begun, in seconds since the epoch."""
        return self._began_at

    def tick(self) -> None:
        """Note that time has passed."""
        now = self._clock()
        self._now = max(now, self._now)
        interval = int(self._now // INTERVAL)
        for number in range(max(self._interval + 1, interval - KEPT + 1), interval + 1):
            for rings in self._routes.values():
                rings.begin(number % KEPT)
        self._interval = interval
        kept = interval - KEPT
        self._routes = {name: rings for name, rings in self._routes.items() if rings.last > kept}
        self._found.clear()

    def record(self, activity: Mapping[str, RouteActivity], seconds: float = 0.0) -> None:
        """Add what routes did in the last `seconds`."""
        if not self._routes:
            self._began_at = min(self._began_at, self._now - seconds)
        at = self._interval % KEPT
        for name, each in activity.items():
            rings = self._rings(name)
            counts = (each.handled, each.failed, each.retried, each.dead + each.dropped)
            for figure, count in zip(_COUNTS, counts, strict=True):
                rings.figures[figure][at] += count
            calls = rings.calls[-1]
            for bucket, count in each.handling.items():
                if 0 <= bucket < len(calls):
                    calls[bucket] += count
        self._found.clear()

    def record_backlogs(self, states: Iterable[SubscriptionState]) -> None:
        """Note how many messages wait for each route."""
        at = self._interval % KEPT
        for state in states:
            waiting = state.waiting or 0
            if waiting or state.route in self._routes:
                self._rings(state.route).figures["backlog"][at] = waiting

    def figures(self, route: str) -> RouteFigures:
        """Return what a route does now."""
        rings = self._routes.get(route)
        if rings is None:
            return _NOTHING
        if route not in self._found:
            self._found[route] = self._figures(rings)
        return self._found[route]

    def series(self, route: str, figure: Figure, points: int, every: int = 1) -> list[float | None]:
        """Return a figure of the last `points` times `every` intervals, the latest last.

        Counts are a second. A point is the sum of its intervals, the greatest duration, or the latest
        backlog. None is unknown.
        """
        rings = self._routes.get(route)
        if rings is None:
            return [0.0 if figure in _COUNTS else None] * points
        ring = rings.figures[figure]
        end = self._interval % KEPT + 1
        start = end - points * every
        # A slice of the ring that begins before it is in two parts.
        values = list(ring[start:end] if start >= 0 else ring[start:] + ring[:end])
        groups = [values[index : index + every] for index in range(0, len(values), every)]
        if figure in _COUNTS:
            return [sum(group) / (every * INTERVAL) for group in groups]
        if figure == "backlog":
            return [_last(group) for group in groups]
        return [_greatest(group) for group in groups]

    def _rings(self, name: str) -> _Rings:
        rings = self._routes.get(name)
        if rings is None:
            rings = self._routes[name] = _Rings()
        rings.last = self._interval
        return rings

    def _figures(self, rings: _Rings) -> RouteFigures:
        places = [(self._interval - back) % KEPT for back in range(RECENT + 1)]
        since = max(self._began_at, (self._interval - RECENT) * INTERVAL)
        seconds = max(1.0, self._now - since)
        handled, failed = (sum(rings.figures[name][at] for at in places) for name in ("handled", "failed"))
        calls = [sum(column) for column in zip(*rings.calls, strict=True)]
        share = _failing_share(handled, failed)
        return RouteFigures(
            rate=handled / seconds,
            failed=failed / seconds,
            p50=quantile(calls, 0.5),
            p99=quantile(calls, 0.99),
            failing=share,
            failing_for=self._failing_for(rings) if share else 0.0,
            growth=self._growth(rings),
            retried=round(sum(rings.figures["retried"])),
            dead=round(sum(rings.figures["dead"])),
            calls=tuple(calls),
        )

    def _failing_for(self, rings: _Rings) -> float:
        """Return how long the attempts have failed; an interval without attempts does not end it."""
        first = self._interval
        for back in range(1, KEPT):
            at = (self._interval - back) % KEPT
            handled, failed = (rings.figures[name][at] for name in ("handled", "failed"))
            if _failing_share(handled, failed):
                first = self._interval - back
            elif handled or failed:
                break
        return max(0.0, self._now - max(self._began_at, first * INTERVAL))

    def _growth(self, rings: _Rings) -> float:
        ring = rings.figures["backlog"]
        known = [
            (back, ring[(self._interval - back) % KEPT])
            for back in range(2 * RECENT)
            if not math.isnan(ring[(self._interval - back) % KEPT])
        ]
        if len(known) < 2:
            return 0.0
        (newest, now), (oldest, before) = known[0], known[-1]
        return (now - before) / ((oldest - newest) * INTERVAL)


def _failing_share(handled: float, failed: float) -> float:
    if failed < FAILING_LEAST:
        return 0.0
    share = failed / (handled + failed)
    return share if share >= FAILING_SHARE else 0.0


def _no_calls() -> list[int]:
    return [0] * (len(HANDLING_BOUNDS) + 1)


def _last(values: Iterable[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return known[-1] if known else None


def _greatest(values: Iterable[float]) -> float | None:
    return max((value for value in values if not math.isnan(value)), default=None)
