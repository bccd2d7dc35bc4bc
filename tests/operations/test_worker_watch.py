"""Which workers report, which are silent, and which have left."""

from __future__ import annotations

import msgspec
import pytest

from abe_router.backend import Entry, Features
from abe_router.operations.condition import RUNNING, Condition, RouteWorkers, condition_of, route_workers
from abe_router.operations.rate_history import RouteFigures
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.operations.worker_watch import REMEMBERED, WorkerWatch
from abe_router.runtime.heartbeat import RouteState, WorkerReport
from abe_router.runtime.override import Override


class Clock:
    """A clock that a test moves."""

    at = 100.0

    def __call__(self):
        return self.at


def entry(number, revision, *, started_at=0.0, connected=True):
    routes = {"a/b": RouteState(0, connected)}
    report = WorkerReport("host", 40 + number, started_at, "r", number=number, routes=routes)
    return Entry(msgspec.json.encode(report), revision)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return WorkerWatch(clock)


def test_report_is_new_once(watch):
    entries = {"one": entry(1, 1), "two": entry(2, 2)}
    assert len(watch.update(entries)) == 2
    assert watch.update(entries) == []
    assert [report.number for report in watch.update(entries | {"two": entry(2, 3)})] == [2]
    assert watch.update({"other": Entry(b"of another version", 4)}) == []
    assert [worker.label for worker in watch.workers()] == ["other"]


def test_worker_that_deletes_its_report_has_left(clock, watch):
    watch.update({"one": entry(1, 1)})
    clock.at += 3
    watch.update({})
    assert list(watch.workers()) == []


def test_worker_whose_report_expires_is_silent_until_it_is_replaced(clock, watch):
    watch.update({"one": entry(1, 1), "two": entry(2, 2)})
    clock.at += 12
    watch.update({"one": entry(1, 3)})
    silent = [worker for worker in watch.workers() if worker.is_silent]
    assert [(worker.label, worker.age) for worker in silent] == [("worker 2", 12)]
    watch.update({"one": entry(1, 3), "three": entry(2, 4, started_at=1.0)})
    assert not any(worker.is_silent for worker in watch.workers())


def test_worker_that_is_not_replaced_is_forgotten_after_a_while(clock, watch):
    watch.update({"one": entry(1, 1)})
    clock.at += REMEMBERED + 1
    watch.update({})
    assert list(watch.workers()) == []


def test_workers_of_a_route_are_counted_with_what_is_wrong(clock, watch):
    watch.update({"one": entry(1, 1), "two": entry(2, 2)})
    clock.at += 12
    watch.update({"one": entry(1, 3), "two": entry(2, 2)})
    found = route_workers(watch.workers())["a/b"]
    assert found == RouteWorkers(1, "no heartbeat from worker 2 for 12s")
    watch.update({"one": entry(1, 4, connected=False)})
    assert "worker 1 cannot reach the backend" in {each.trouble for each in _of(watch, 1)}


def _of(watch, number):
    found = [each for each in watch.workers() if each.report.number == number]
    return route_workers(found).values()


def override(action, rate=None):
    return Override(action, "a/b", 1_000.0, 600.0, "ada", "mail quota", rate)


@pytest.mark.parametrize(
    ("state", "figures", "workers", "condition"),
    [
        ({}, {}, {}, RUNNING),
        (
            {"in_file": False},
            {},
            {"running": 0},
            Condition("stale", "not in the file", "3 messages wait"),
        ),
        ({"in_file": False}, {}, {}, RUNNING),  # a worker of another file runs it
        ({"paused": True}, {}, {}, Condition("paused", "paused", "by the routes file")),
        (
            {"overrides": (override("pause"),)},
            {"failing": 0.5},
            {},
            Condition("paused", "paused until 00:26 UTC", "by ada: mail quota"),
        ),
        (
            {"overrides": (override("limit", 5.0),)},
            {},
            {},
            Condition("limited", "limited to 5/s until 00:26 UTC", "by ada: mail quota"),
        ),
        (
            {},
            {"failing": 0.61, "failing_for": 720},
            {},
            Condition("failing", "failing", "61% of attempts for 12m"),
        ),
        ({}, {}, {"running": 0}, Condition("stale", "stale", "no worker runs it")),
        ({}, {}, {"trouble": "no heartbeat"}, Condition("stale", "stale", "no heartbeat")),
        ({"oldest_at": 950.0}, {}, {}, RUNNING),
        (
            {"oldest_at": 900.0},
            {"growth": -1.0},
            {},
            Condition("behind", "falling behind", "the oldest message waits for 1m"),
        ),
        (
            {"oldest_at": 900.0},
            {"rate": 18.5, "growth": 5.5},
            {},
            Condition("behind", "falling behind", "24/s in, 18.5/s out"),
        ),
    ],
)
def test_condition_says_what_an_operator_should_know_first(state, figures, workers, condition):
    found = condition_of(
        SubscriptionState("a/b", **{"in_file": True, "ready": 3} | state),
        RouteFigures(**figures),
        RouteWorkers(**{"running": 1} | workers),
        Features(),
        now=1_000.0,
    )
    assert found == condition


def test_routes_without_reports_of_workers_are_not_stale():
    state = SubscriptionState("a/b", True, ready=0)
    for features in (Features(key_value=False), Features(processes=False)):
        assert condition_of(state, RouteFigures(), RouteWorkers(), features) == RUNNING
