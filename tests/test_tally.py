"""Tallies: durations by bucket, counts that add up, outages of a process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest

from abe_router import Router
from abe_router.backend import Delivery
from abe_router.consumer.settler import FOLDED_RECORDS
from abe_router.messages.message import new_message
from abe_router.observe import log_context
from abe_router.observe.events import BackendBack, BackendLost, ConsumerStopped, Reloaded, ReloadRejected
from abe_router.observe.tally import (
    HANDLING_BOUNDS,
    WAITING_BOUNDS,
    ProcessCounts,
    ProcessTally,
    RouteCounts,
    RouteTally,
    added,
)


def bucket(seconds: float, bounds: tuple[float, ...]) -> int:
    return next((index for index, bound in enumerate(bounds) if seconds <= bound), len(bounds))


def outcomes(counts: RouteCounts) -> dict[str, dict[str, int]]:
    """Return the outcomes that were counted at least once."""
    found = {
        outcome: {reason: count for reason, count in reasons.items() if count}
        for outcome, reasons in counts.outcomes.items()
    }
    return {outcome: reasons for outcome, reasons in found.items() if reasons}


@pytest.mark.parametrize("longest", [0.0004, 0.004, 100.0])
def test_each_call_is_counted_in_the_bucket_of_its_duration(longest):
    random = Random(longest)
    calls = [random.uniform(0, longest) for _ in range(200)] + [0.0, longest]
    tally = RouteTally()
    for start in range(0, len(calls), 50):
        for seconds in calls[start : start + 50]:
            tally.record_call(seconds)
        tally.fold()
    expected = [0] * (len(HANDLING_BOUNDS) + 1)
    for seconds in calls:
        expected[bucket(seconds, HANDLING_BOUNDS)] += 1
    counts = tally.counts()
    assert counts.handling == tuple(expected)
    assert counts.handling_seconds == pytest.approx(sum(calls))


def test_a_duration_that_equals_a_bound_counts_below_it():
    tally = RouteTally()
    for bound in HANDLING_BOUNDS:
        tally.record_call(bound)
    assert tally.counts().handling == (*[1] * len(HANDLING_BOUNDS), 0)


def test_waits_are_measured_from_the_time_of_acceptance():
    tally, waits = RouteTally(), [0.002, 2.5, 100.0, 7200.0, 200_000.0]
    tally.clock = lambda: 5.0  # the clock of the loop begins anywhere
    for seconds in waits:
        tally.record_wait(5.0 - (time.time() - seconds))
    counts = tally.counts()
    assert [index for index, count in enumerate(counts.waiting) if count] == [1, 7, 10, 13, 14]
    assert counts.waiting_seconds == pytest.approx(sum(waits), abs=5)
    assert counts.clock_skews == 0


def test_a_message_from_a_clock_that_is_ahead_waits_0_seconds_and_is_counted():
    tally = RouteTally()
    for ahead in (60.0, -3.0, 0.5):
        tally.record_wait(tally.clock() - (time.time() + ahead))
    counts = tally.counts()
    assert (counts.clock_skews, counts.waiting[0]) == (2, 2)
    assert counts.waiting[bucket(3.5, WAITING_BOUNDS)] == 1
    assert counts.waiting_seconds == pytest.approx(3, abs=2)


def test_counts_of_processes_add_up_and_survive_json():
    one, other = RouteTally(), RouteTally()
    one.handled, other.handled = 3, 4
    one.count("retried", "failed")
    other.count("retried", "timeout")
    other.count("dead", "timeout")
    one.record_call(0.003)
    other.record_call(70.0)
    sent = msgspec.json.decode(msgspec.json.encode(other.counts(in_flight=2, slots=5)), type=RouteCounts)
    total = added([{"a/b": one.counts(in_flight=1, slots=5)}, {"a/b": sent, "c/d": sent}])
    assert total["c/d"] == sent
    assert outcomes(total["a/b"]) == {
        "handled": {"": 7},
        "retried": {"failed": 1, "timeout": 1},
        "dead": {"timeout": 1},
    }
    assert (total["a/b"].total("retried"), total["a/b"].total("skipped")) == (2, 0)
    assert (sum(total["a/b"].handling), total["a/b"].handling_seconds) == (2, 70.003)
    assert (total["a/b"].in_flight, total["a/b"].slots) == (3, 10)
    assert total["a/b"].since == one.since
    assert (total["a/b"].retired().in_flight, total["a/b"].retired().total("handled")) == (0, 7)


def test_an_outage_lasts_from_the_first_route_that_is_lost_to_the_last_that_is_back():
    now = [100.0]
    tally = ProcessTally(clock=lambda: now[0])

    def at(seconds: float, event: object) -> None:
        now[0] = 100.0 + seconds
        tally.on_event(event)

    at(0, BackendLost("a/b", "refused", 0.1))
    at(1, BackendLost("c/d", "refused", 0.1))
    at(1, BackendLost("a/b", "refused", 0.1))
    at(2, BackendBack("a/b", 2.0))
    assert tally.counts() == ProcessCounts(outages=1, outage_seconds=2.0, disconnected=1)
    at(3, ConsumerStopped("c/d", 0, 0, 1.0))
    at(9, BackendLost("e/f", "refused", 0.1))
    at(10, Reloaded(2, "r", (), ("e/f",), (), 3, 0.1))  # it was stopped before it could subscribe
    at(20, ReloadRejected(()))
    expected = ProcessCounts(outages=2, outage_seconds=4.0, accepted=1, rejected=1, stalls=7)
    assert tally.counts(stalls=7) == expected
    assert expected + expected == ProcessCounts(
        outages=4, outage_seconds=8.0, accepted=2, rejected=2, stalls=14
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda tally: tally.record_call(0.1),
        lambda tally: tally.record_wait(0.0),
        lambda tally: tally.count("released"),
        lambda tally: setattr(tally, "handled", 1),
    ],
    ids=["call", "wait", "outcome", "success"],
)
def test_an_idle_route_returns_the_same_counts_until_it_does_something(change):
    tally = RouteTally()
    before = tally.counts(slots=2)
    assert tally.counts(slots=2) is before
    assert tally.counts(slots=3) != before
    before = tally.counts(slots=2)
    change(tally)
    assert tally.counts(slots=2) != before


MESSAGES = 10_000
#: What tallies, and what the log context, may take of the processor time of a drain: twice the usual part.
SHARE = 0.09


async def drain(tmp_path: Path) -> float:
    """Return the processor time in seconds of draining `MESSAGES` on memory, the shortest of three."""
    (tmp_path / "routes.yaml").write_text(
        "backend: memory://\nroutes: {a: {consumers: {g: 'tallied:work'}}}\n"
    )
    (tmp_path / "tallied.py").write_text("async def work(payload): counted()\n")
    router = Router.from_file(tmp_path / "routes.yaml", watch=False)
    left, done, times = 0, asyncio.Event(), []

    def counted() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    sys.modules["tallied"].counted = counted
    async with router:
        for _ in range(3):
            left = MESSAGES
            done.clear()
            messages = [new_message("a", b"1") for _ in range(MESSAGES)]
            began_at = time.process_time()
            await router.backend.append(messages)
            await done.wait()
            times.append(time.process_time() - began_at)
    return min(times)


def shortest(work: Callable[[Sequence[Delivery]], object]) -> float:
    """Return the processor time in seconds of `work` on `MESSAGES` deliveries, the shortest of thirty."""
    deliveries, times = [Delivery(new_message("a", b"1"), 1, None) for _ in range(MESSAGES)], []
    for _ in range(30):
        began_at = time.process_time()
        work(deliveries)
        times.append(time.process_time() - began_at)
    return min(times)


@pytest.mark.alone
async def test_tallies_and_log_context_take_a_small_share_of_a_drain(tmp_path, monkeypatch):
    """Memory is the fastest backend, so the share is the largest there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tally = RouteTally()
    tally.clock = clock = time.monotonic

    def nothing(deliveries):
        for _ in deliveries:
            clock()

    def count(deliveries):  # as the worker pool and the settler do
        record_wait, record_call = tally.record_wait, tally.record_call
        for number, delivery in enumerate(deliveries):
            now = clock()
            if delivery.deliveries == 1:
                record_wait(now - delivery.message.published_at)
            record_call(now - now)
            if number % 100 == 0:
                tally.fold(FOLDED_RECORDS)

    def set_context(deliveries):
        for delivery in deliveries:
            clock()
            log_context.deliveries.set((delivery,))

    drained, nothing_at_all = await drain(tmp_path), shortest(nothing)
    assert shortest(count) - nothing_at_all < SHARE * drained
    assert shortest(set_context) - nothing_at_all < SHARE * drained
    assert tally.counts().handling[0] == 30 * MESSAGES
