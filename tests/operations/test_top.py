"""`LoadReader`: rates from the reports of workers, counts from the backend."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import new_message
from abe_router.observe.tally import HANDLING_BOUNDS, RouteCounts
from abe_router.operations import top as module
from abe_router.operations.top import LoadReader, RouteLoad, quantile
from abe_router.routing.table import RouteTable
from abe_router.runtime.activity import ActivityReporter, RouteActivity
from abe_router.runtime.heartbeat import WORKERS, RouteState, WorkerReport, decode_report
from tests.limits import HANG

TABLE = RouteTable(revision="abc")


async def report(backend: MemoryBackend, name: str, interval: float, activity: RouteActivity | None) -> None:
    worker = WorkerReport(
        name,
        1,
        0.0,
        "abc",
        routes={"a/g": RouteState()},
        interval=interval,
        activity={} if activity is None else {"a/g": activity},
    )
    await backend.put(WORKERS, name, msgspec.json.encode(worker), ttl=60)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


async def test_rates_are_the_sum_of_what_the_workers_report(clock: Clock) -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("a", "g")
        await report(backend, "one", 2.0, RouteActivity(handled=20, retried=4, dead=2, dropped=2, skipped=6))
        await report(backend, "two", 4.0, RouteActivity(handled=4, handling={4: 3}))
        await report(backend, "three", 0.0, None)
        await backend.append([new_message("a", b"1") for _ in range(5)])
        reader = LoadReader(TABLE, backend)
        (first,) = (await reader.read()).routes
        clock.now += 2.0
        await backend.append([new_message("a", b"1") for _ in range(8)])
        load = await reader.read()
    assert first.accepted is None  # one reading shows no growth
    (route,) = load.routes
    assert (route.handled, route.retried, route.failed) == (11.0, 2.0, 4.0)
    assert route.accepted == (20 + 6 + 2 + 2) / 2 + 4 / 4 + 8 / 2
    assert (route.waiting, route.in_flight, route.dead, route.workers) == (13, 0, 0, 3)
    assert (load.workers, load.disconnected, load.handled) == (3, 0, 11.0)
    assert 0.005 < route.p50 < route.p99 <= 0.01


async def test_rate_of_new_messages_is_never_negative(clock: Clock) -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("a", "g")
        await backend.append([new_message("a", b"1") for _ in range(9)])
        reader = LoadReader(TABLE, backend)
        await reader.read()
        await backend.drop("a", "g")
        await backend.subscribe("a", "g", start=float("inf"))
        clock.now += 1.0
        (route,) = (await reader.read()).routes
    assert route.accepted == 0.0


async def test_route_without_subscription_has_no_counts() -> None:
    from abe_router.routing.handler import handler_from
    from abe_router.routing.route import Route

    table = RouteTable(routes=(Route("a", "g", handler_from(print), paused=True),), revision="abc")
    async with MemoryBackend() as backend:
        load = await LoadReader(table, backend).read()
    assert load.routes == (RouteLoad("a/g", in_file=True, paused=True),)


async def test_report_with_unknown_buckets_is_read() -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("a", "g")
        await report(backend, "one", 1.0, RouteActivity(handled=1, handling={99: 1, -1: 2}))
        (route,) = (await LoadReader(TABLE, backend).read()).routes
    assert (route.handled, route.p50) == (1.0, None)


def test_quantile_lies_in_the_bucket_of_its_call() -> None:
    none = [0] * (len(HANDLING_BOUNDS) + 1)
    assert quantile(none, 0.5) is None
    counts = [*none]
    counts[1], counts[4], counts[-1] = 50, 49, 1
    assert quantile(counts, 0.5) == HANDLING_BOUNDS[1]
    assert HANDLING_BOUNDS[3] < quantile(counts, 0.99) <= HANDLING_BOUNDS[4]
    assert quantile(counts, 1.0) == HANDLING_BOUNDS[-1]


def test_activity_has_only_routes_that_did_something() -> None:
    counts = {
        "a/g": RouteCounts(since=1.0, outcomes={"handled": {"": 5}}),
        "b/g": RouteCounts(since=1.0, outcomes={"skipped": {"when": 9}}),
    }
    clock = Clock()
    reporter = ActivityReporter(lambda: counts, clock)
    clock.now += 3.0
    assert reporter.report() == (3.0, {})
    handling = tuple(7 if bucket == 2 else 0 for bucket in range(len(HANDLING_BOUNDS) + 1))
    outcomes = {"handled": {"": 9}, "retried": {"failed": 2, "timeout": 1}}
    counts = {
        "a/g": RouteCounts(since=1.0, outcomes=outcomes, handling=handling),
        "b/g": RouteCounts(since=2.0, outcomes={"skipped": {"when": 1}}),  # removed, and added again
        "c/g": RouteCounts(since=2.0, outcomes={"lease_lost": {"renewal": 1}}),
    }
    clock.now += 2.0
    assert reporter.report() == (
        2.0,
        {
            "a/g": RouteActivity(handled=4, retried=3, handling={2: 7}),
            "b/g": RouteActivity(skipped=1),
            "c/g": RouteActivity(lease_lost=1),
        },
    )
    assert reporter.report() == (0.0, {})


def test_activity_of_a_thousand_routes_costs_nothing_while_they_are_idle() -> None:
    counts = {f"route.{n}/g": RouteCounts(since=1.0) for n in range(1_000)}
    reporter = ActivityReporter(lambda: counts)
    seconds, activity = reporter.report()
    report = WorkerReport("h", 1, 0.0, "abc", interval=seconds, activity=activity)
    assert len(msgspec.json.encode(report)) < 300


async def test_heartbeat_reports_what_its_routes_did(tmp_path, monkeypatch) -> None:
    from abe_router.observe.events import Events
    from abe_router.routing.handler import handler_from
    from abe_router.routing.route import Route
    from abe_router.runtime import heartbeat_reporter
    from abe_router.runtime.reconciler import Reconciler

    monkeypatch.setattr(heartbeat_reporter, "EVERY", 0.05)
    async with MemoryBackend() as backend:
        reconciler = Reconciler(backend, Events())
        beating = heartbeat_reporter.HeartbeatReporter(
            backend, reconciler, Events(), edited=asyncio.Event(), rejected=list
        )
        await reconciler.apply(RouteTable(routes=(Route("a", "g", handler_from(len)),), revision="abc"))
        running = asyncio.create_task(beating.run())
        await backend.append([new_message("a", b"[]") for _ in range(3)])
        handled = calls = revision = 0
        async with asyncio.timeout(HANG):
            while handled < 3 or calls < 3:  # a call is counted before its outcome is stored
                for entry in (await backend.entries(WORKERS)).values():
                    found = decode_report(entry.value)
                    if entry.revision != revision and found and "a/g" in found.activity:
                        assert found.interval > 0
                        handled += found.activity["a/g"].handled
                        calls += sum(found.activity["a/g"].handling.values())
                    revision = entry.revision
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        await reconciler.stop(0)
    assert (handled, calls) == (3, 3)
