"""Permits never exceed the rate plus one burst, and none is withheld for longer than it must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abe_router.rate import BURST, permit


@given(
    st.floats(0.1, 10_000),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), max_size=50),
)
def test_over_any_time_the_rate_and_one_burst_are_the_limit(rate, steps):
    state, now, granted = 0.0, 1_000.0, 0
    for pause, wanted in steps:
        now += pause
        permits, state = permit(state, now, rate, wanted)
        assert 0 <= permits.granted <= wanted
        granted += permits.granted
        assert granted <= max(1.0, rate * BURST) + rate * (now - 1_000.0) + 1e-3


@given(st.floats(0.1, 10_000))
def test_waiting_as_told_brings_the_next_permit(rate):
    state, now = 0.0, 50.0
    for _ in range(20):
        permits, state = permit(state, now, rate, 1)
        if not permits.granted:
            now += permits.seconds + 1e-6
            permits, state = permit(state, now, rate, 1)
        assert permits.granted == 1
