"""Backoff and the log throttle."""

from __future__ import annotations

from abe_router.backoff import Backoff, LogThrottle


def test_delays_double_up_to_the_longest_and_are_shortened_by_up_to_half():
    backoff = Backoff(0.1, 1.0)
    delays = [backoff.next() for _ in range(20)]
    assert 0.05 <= delays[0] <= 0.1
    assert all(0.5 <= delay <= 1.0 for delay in delays[4:])


def test_delays_without_jitter_are_exact_and_begin_again_after_a_reset():
    backoff = Backoff(0.5, 3.0, jitter=False)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next() == 0.5


def test_a_failure_is_logged_at_once_and_then_after_intervals_that_double():
    throttle = LogThrottle(10.0, 600.0)
    logged = [second for second in range(3000) if throttle.is_due(second)]
    assert logged == [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430]
