"""The last hour of the routes in memory."""

from __future__ import annotations

import pytest

from abe_router.operations.rate_history import INTERVAL, KEPT, RateHistory, RouteFigures
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.runtime.activity import RouteActivity


class Clock:
    """A clock that a test moves."""

    at = 1_000.0 * INTERVAL

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def history(clock):
    return RateHistory(clock)


def pass_time(clock, history, intervals=1):
    clock.at += intervals * INTERVAL
    history.tick()


def test_figures_are_of_the_last_minute(clock, history):
    history.record({"a/b": RouteActivity(handled=600)}, 0)
    for _ in range(4):
        pass_time(clock, history)
        history.record({"a/b": RouteActivity(handled=30, handling={4: 30})}, INTERVAL)
    assert history.figures("a/b").rate == pytest.approx(720 / 60)
    pass_time(clock, history)
    figures = history.figures("a/b")
    assert figures.rate == pytest.approx(2.0)
    assert 0.005 <= figures.p50 < figures.p99 <= 0.01
    assert sum(figures.calls) == 120
    assert history.figures("another/route") == RouteFigures()


def test_rate_at_the_start_is_of_the_time_that_was_reported(clock, history):
    clock.at += 1
    history.tick()
    history.record({"a/b": RouteActivity(handled=12)}, 3.0)
    assert history.figures("a/b").rate == pytest.approx(4.0)


def test_route_fails_while_a_fifth_of_its_attempts_fail(clock, history):
    history.record({"a/b": RouteActivity(handled=100, retried=2)}, INTERVAL)
    assert history.figures("a/b").failing == 0
    for _ in range(3):
        pass_time(clock, history)
        history.record({"a/b": RouteActivity(handled=1, retried=60, dead=20)}, INTERVAL)
    figures = history.figures("a/b")
    assert figures.failing == pytest.approx(242 / 345)
    assert figures.failing_for == 2 * INTERVAL
    assert (figures.retried, figures.dead) == (182, 60)
    pass_time(clock, history, 6)
    assert history.figures("a/b").failing == 0


def test_series_has_the_latest_point_last(clock, history):
    for number in range(1, 7):
        history.record({"a/b": RouteActivity(handled=number * INTERVAL, handling={number: 1})}, INTERVAL)
        pass_time(clock, history)
    assert history.series("a/b", "handled", 4, 2) == [0.5, 2.5, 4.5, 3.0]
    assert [value is not None for value in history.series("a/b", "p99", 4, 2)] == [True, True, True, True]
    assert history.series("no/route", "handled", 3) == [0.0, 0.0, 0.0]


def test_backlog_is_none_where_it_was_not_read(clock, history):
    history.record_backlogs([SubscriptionState("a/b", True, ready=3, delayed=2)])
    pass_time(clock, history, 2)
    history.record_backlogs([SubscriptionState("a/b", True, ready=65, delayed=0)])
    assert history.series("a/b", "backlog", 3) == [5.0, None, 65.0]
    assert history.figures("a/b").growth == pytest.approx(60 / (2 * INTERVAL))


def test_hour_that_has_passed_is_forgotten(clock, history):
    history.record({"a/b": RouteActivity(handled=5, retried=7)}, INTERVAL)
    pass_time(clock, history, KEPT - 1)
    assert history.figures("a/b").retried == 7
    pass_time(clock, history)
    assert history.figures("a/b") == RouteFigures()
    history.record({"a/b": RouteActivity(retried=1)}, INTERVAL)
    pass_time(clock, history, 10 * KEPT)
    assert history.series("a/b", "retried", KEPT) == [0.0] * KEPT
    assert history._routes == {}
