"""Tallies: what routes and their process have done, as plain numbers.

A consumer counts into the `RouteTally` of its route, always and without a library. On the success path it
appends two numbers to lists for each message, and adds up once for each batch. `RouteCounts` and
`ProcessCounts` are what a tally has counted so far, as values that can be sent and added up.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add

import msgspec

from abe_router.observe.events import (
    BackendBack,
    BackendLost,
    ConsumerStopped,
    DeadLettered,
    Event,
    Handled,
    Reloaded,
    ReloadRejected,
    Retried,
    Skipped,
)

#: The upper bounds of the buckets of handling times and of waiting times, in seconds. One more bucket holds
#: what is above the last bound.
HANDLING_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WAITING_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 3600, 86400)

#: What is counted from 0 on. A rate needs a value before the first increase.
_USUAL = (
    ("skipped", "when"),
    *(("retried", reason) for reason in ("failed", "timeout")),
    *(("dead", reason) for reason in ("failed", "invalid", "rejected", "timeout")),
    ("lease_lost", "settlement"),
)
_NO_HANDLING, _NO_WAITING = (0,) * (len(HANDLING_BOUNDS) + 1), (0,) * (len(WAITING_BOUNDS) + 1)


class RouteCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one route has done since `since`, in seconds since the epoch, and what it does now.

    `outcomes` has the deliveries by outcome and reason:

    - `handled`, and `released` (handed back without an attempt): the reason is empty;
    - `skipped`: the reason is `when`;
    - `retried`, `dead`, and `dropped` (ended without a dead letter): the reason is the kind of the failure;
    - `lease_lost`: `renewal` (before the handler was called) or `settlement` (after).

    Usual ones are there from the start, with 0.

    `handling` counts the calls of the handler by their duration, in the buckets of `HANDLING_BOUNDS`; a batch
    is one call. `waiting` counts the first deliveries by the time from the acceptance of the message to the
    attempt, in the buckets of `WAITING_BOUNDS`. `clock_skews` counts those that began before they were
    accepted, as the clocks of two machines tell it; they count as 0 seconds.

    `in_flight` is fetched and not settled. Of these, `running` is with handlers, and `prefetched` is not
    started. `slots` is the most messages that the handlers run at a time.
    """

    since: float = 0.0
    outcomes: Mapping[str, Mapping[str, int]] = {}
    handling: tuple[int, ...] = _NO_HANDLING
    handling_seconds: float = 0.0
    waiting: tuple[int, ...] = _NO_WAITING
    waiting_seconds: float = 0.0
    clock_skews: int = 0
    in_flight: int = 0
    running: int = 0
    prefetched: int = 0
    slots: int = 0

    def total(self, outcome: str) -> int:
        """Return the number of deliveries with an outcome, for whatever reason."""
        return sum(self.outcomes.get(outcome, {}).values())

    def retired(self) -> RouteCounts:
        """Return what remains when the consumer has ended: it does nothing now."""
        return msgspec.structs.replace(self, in_flight=0, running=0, prefetched=0, slots=0)

    def __add__(self, other: RouteCounts) -> RouteCounts:
        """Return the counts of two consumers of the route together."""
        outcomes = {outcome: dict(reasons) for outcome, reasons in self.outcomes.items()}
        for outcome, reasons in other.outcomes.items():
            of_outcome = outcomes.setdefault(outcome, {})
            for reason, count in reasons.items():
                of_outcome[reason] = of_outcome.get(reason, 0) + count
        return RouteCounts(
            since=min(self.since, other.since),
            outcomes=outcomes,
            handling=tuple(map(add, self.handling, other.handling)),
            handling_seconds=self.handling_seconds + other.handling_seconds,
            waiting=tuple(map(add, self.waiting, other.waiting)),
            waiting_seconds=self.waiting_seconds + other.waiting_seconds,
            clock_skews=self.clock_skews + other.clock_skews,
            in_flight=self.in_flight + other.in_flight,
            running=self.running + other.running,
            prefetched=self.prefetched + other.prefetched,
            slots=self.slots + other.slots,
        )


class _Durations:
    """Durations by bucket. `recorded` has the latest ones, until `fold` counts them.

    To record one is to append it. To find the buckets of many at once takes a third of the time that it takes
    to find one after the other.
    """

    __slots__ = ("_bounds", "buckets", "recorded", "seconds")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self.buckets, self.seconds = bounds, [0] * (len(bounds) + 1), 0.0
        #: The same list for good, because every message is added to it.
        self.recorded: list[float] = []

    def fold(self, offset: float = 0.0) -> int:
        """Count what was recorded, plus `offset` each; return how many were negative, and counted as 0.

        Without an offset none is negative.
        """
        recorded = self.recorded
        if not recorded:
            return 0
        negative = 0
        if not offset and max(recorded) <= self._bounds[0]:  # most handlers are quick
            self.buckets[0] += len(recorded)
        else:
            recorded.sort()  # messages wait in order, so this takes less time than `min` and `max`
            if recorded[0] + offset < 0.0:
                negative = bisect_left(recorded, -offset)
                recorded[:negative] = [-offset] * negative
            ends = [bisect_right(recorded, bound - offset) for bound in self._bounds]
            for bucket, (start, end) in enumerate(zip([0, *ends], [*ends, len(recorded)], strict=True)):
                self.buckets[bucket] += end - start
        self.seconds += sum(recorded) + offset * len(recorded)
        recorded.clear()
        return negative


class RouteTally:
    """Counts for one route of one process; it outlives the consumers that a reload replaces.

    `handled` is the number of handled deliveries. `clock` is the one by which the consumer measures, in
    seconds.
    """

    __slots__ = ("_calls", "_last", "_outcomes", "_skews", "_waits", "clock", "handled", "since")

    def __init__(self) -> None:
        self.since, self.clock = time.time(), time.monotonic
        self.handled, self._skews = 0, 0
        self._outcomes = dict.fromkeys(_USUAL, 0)
        self._calls, self._waits = _Durations(HANDLING_BOUNDS), _Durations(WAITING_BOUNDS)
        #: The last counts, and what they were made of, as long as nothing else has changed.
        self._last: tuple[tuple[int, ...], RouteCounts] | None = None

    @property
    def record_call(self) -> Callable[[float], None]:
        """Count a call of the handler, of so many seconds."""
        return self._calls.recorded.append

    @property
    def record_wait(self) -> Callable[[float], None]:
        """Count the first attempt of a message: its start by `clock`, less the acceptance since the epoch."""
        return self._waits.recorded.append

    def fold(self, at_least: int = 1) -> None:
        """Count what was recorded, if there are so many records.

        The settler calls it after each batch, so that a thousand records are kept.
        """
        if len(self._calls.recorded) >= at_least or len(self._waits.recorded) >= at_least:
            self._last = None
            self._calls.fold()
            self._skews += self._waits.fold(time.time() - self.clock())

    def count(self, outcome: str, reason: str = "") -> None:
        """Count a delivery that was not handled, or was lost."""
        self._last = None
        self._outcomes[outcome, reason] = self._outcomes.get((outcome, reason), 0) + 1

    def count_event(self, event: Event) -> None:
        """Count a delivery by the event that reports it."""
        match event:
            case Handled():
                self.handled += 1
            case Skipped(why="when"):
                self.count("skipped", "when")
            case Skipped():
                self.count("dropped", event.why)
            case Retried():
                self.count("retried", event.kind)
            case DeadLettered():
                self.count("dead" if event.kept else "dropped", event.kind)

    def counts(
        self, *, in_flight: int = 0, running: int = 0, prefetched: int = 0, slots: int = 0
    ) -> RouteCounts:
        """Return what was counted so far, with what the consumer does now.

        Most routes of a large file are idle, and return the same value as before.
        """
        self.fold()
        now = self.handled, in_flight, running, prefetched, slots
        if self._last is not None and self._last[0] == now:
            return self._last[1]
        outcomes: dict[str, dict[str, int]] = {"handled": {"": self.handled}}
        for (outcome, reason), count in tuple(self._outcomes.items()):
            outcomes.setdefault(outcome, {})[reason] = count
        counts = RouteCounts(
            since=self.since,
            outcomes=outcomes,
            handling=tuple(self._calls.buckets),
            handling_seconds=self._calls.seconds,
            waiting=tuple(self._waits.buckets),
            waiting_seconds=self._waits.seconds,
            clock_skews=self._skews,
            in_flight=in_flight,
            running=running,
            prefetched=prefetched,
            slots=slots,
        )
        self._last = now, counts
        return counts


class ProcessCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the processes have met, all routes together; durations in seconds.

    `stalls` is how often an event loop was blocked. `outage_seconds` is how long at least one route could not
    reach the backend; `disconnected` is the number of routes that cannot reach it now. `accepted` and
    `rejected` count the edits of the routes file, in each process.
    """

    stalls: int = 0
    stalled_seconds: float = 0.0
    outages: int = 0
    outage_seconds: float = 0.0
    disconnected: int = 0
    accepted: int = 0
    rejected: int = 0

    def retired(self) -> ProcessCounts:
        """Return what remains when the process has ended."""
        return msgspec.structs.replace(self, disconnected=0)

    def __add__(self, other: ProcessCounts) -> ProcessCounts:
        """Return the counts of both processes."""
        return ProcessCounts(*map(add, msgspec.structs.astuple(self), msgspec.structs.astuple(other)))


class ProcessTally:
    """Counts outages and edits from their events, which are rare."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: set[str] = set()
        self._outages, self._outage_seconds, self._began_at = 0, 0.0, 0.0
        self._accepted = self._rejected = 0

    #: The kinds of events that `on_event` counts.
    KINDS = (BackendLost, BackendBack, ConsumerStopped, Reloaded, ReloadRejected)

    def on_event(self, event: Event) -> None:
        """Count an event."""
        match event:
            case BackendLost():
                if not self._lost:
                    self._outages, self._began_at = self._outages + 1, self._clock()
                self._lost.add(event.route)
            case BackendBack() | ConsumerStopped():
                self._end((event.route,))
            case Reloaded():
                self._accepted += 1
                self._end(event.removed)  # one may have stopped before it could subscribe
            case ReloadRejected():
                self._rejected += 1

    def _end(self, routes: Iterable[str]) -> None:
        was_lost = bool(self._lost)
        self._lost.difference_update(routes)
        if was_lost and not self._lost:
            self._outage_seconds += self._clock() - self._began_at

    def counts(self, *, stalls: int = 0, stalled_seconds: float = 0.0) -> ProcessCounts:
        """Return what was counted so far; an outage that lasts counts until now."""
        lasting = self._clock() - self._began_at if self._lost else 0.0
        return ProcessCounts(
            stalls=stalls,
            stalled_seconds=stalled_seconds,
            outages=self._outages,
            outage_seconds=self._outage_seconds + lasting,
            disconnected=len(self._lost),
            accepted=self._accepted,
            rejected=self._rejected,
        )


def added(counts: Iterable[Mapping[str, RouteCounts]]) -> dict[str, RouteCounts]:
    """Return the counts of several processes together, by route."""
    result: dict[str, RouteCounts] = {}
    for each in counts:
        for name, of_route in each.items():
            result[name] = result[name] + of_route if name in result else of_route
    return result
