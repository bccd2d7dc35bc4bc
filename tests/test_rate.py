"""Granted tokens stay within the rate plus one burst, and no token is delayed longer than needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abe_router.backend.rate import BURST, grant


@given(
    st.floats(0.1, 10_000),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), max_size=50),
)
def test_granted_tokens_never_exceed_the_rate_plus_one_burst(rate, steps):
    state, now, granted = 0.0, 1_000.0, 0
    for elapsed, wanted in steps:
        now += elapsed
        tokens, state = grant(state, now, rate, wanted)
        assert 0 <= tokens.granted <= wanted
        granted += tokens.granted
        assert granted <= max(1.0, rate * BURST) + rate * (now - 1_000.0) + 1e-3


@given(st.floats(0.1, 10_000))
def test_token_is_granted_after_the_returned_wait(rate):
    state, now = 0.0, 50.0
    for _ in range(20):
        tokens, state = grant(state, now, rate, 1)
        if not tokens.granted:
            now += tokens.seconds + 1e-6
            tokens, state = grant(state, now, rate, 1)
        assert tokens.granted == 1


@given(st.floats(1e-4, 10_000), st.floats(1, 1_000), st.integers(1, 500))
def test_raised_rate_applies_at_once(rate, times, wanted):
    now, higher = 1_000.0, rate * times
    _, state = grant(0.0, now, rate, wanted)
    tokens, state = grant(state, now, higher, 1)
    assert tokens.seconds <= (1 + 1e-6) / higher + 1e-9
    if not tokens.granted:
        tokens, _ = grant(state, now + tokens.seconds + 1e-6, higher, 1)
    assert tokens.granted == 1


@given(st.floats(1e-4, 10_000), st.integers(1, 500), st.floats(0, 1e6))
def test_clock_that_goes_back_delays_no_token_beyond_one_interval(rate, wanted, back):
    now = 2e6
    _, state = grant(0.0, now, rate, wanted)
    now -= back
    tokens, state = grant(state, now, rate, 1)
    assert tokens.seconds <= (1 + 1e-6) / rate + 1e-9
    if not tokens.granted:
        tokens, _ = grant(state, now + tokens.seconds + 1e-6, rate, 1)
    assert tokens.granted == 1


@given(
    st.lists(st.floats(0.1, 10_000), min_size=2, max_size=2),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500), st.integers(0, 1)), max_size=50),
)
def test_workers_with_different_rates_stay_within_the_higher_one(rates, steps):
    state, now, granted, higher = 0.0, 1_000.0, 0, max(rates)
    for elapsed, wanted, which in steps:
        now += elapsed
        tokens, state = grant(state, now, rates[which], wanted)
        granted += tokens.granted
        assert granted <= max(1.0, higher * BURST) + higher * (now - 1_000.0) + 1e-3


@given(
    st.floats(0.1, 10_000),
    st.floats(0.001, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), max_size=50),
)
def test_lowered_rate_applies_at_once(rate, times, steps):
    lower, now, granted = rate * times, 1_000.0, 0
    _, state = grant(0.0, now, rate, 500)
    for elapsed, wanted in steps:
        now += elapsed
        tokens, state = grant(state, now, lower, wanted)
        granted += tokens.granted
        assert granted <= max(1.0, lower * BURST) + lower * (now - 1_000.0) + 1e-3
