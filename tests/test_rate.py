"""TokenGrant never exceed the rate plus one burst, and none is withheld for longer than it must."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abe_router.backend.rate import BURST, grant


@given(
    st.floats(0.1, 10_000),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), max_size=50),
)
def test_over_any_time_the_rate_and_one_burst_are_the_limit(rate, steps):
    state, now, granted = 0.0, 1_000.0, 0
    for pause, wanted in steps:
        now += pause
        tokens, state = grant(state, now, rate, wanted)
        assert 0 <= tokens.granted <= wanted
        granted += tokens.granted
        assert granted <= max(1.0, rate * BURST) + rate * (now - 1_000.0) + 1e-3


@given(st.floats(0.1, 10_000))
def test_waiting_as_told_brings_the_next_permit(rate):
    state, now = 0.0, 50.0
    for _ in range(20):
        tokens, state = grant(state, now, rate, 1)
        if not tokens.granted:
            now += tokens.seconds + 1e-6
            tokens, state = grant(state, now, rate, 1)
        assert tokens.granted == 1


@given(st.floats(1e-4, 10_000), st.floats(1, 1_000), st.integers(1, 500))
def test_a_rate_that_was_raised_holds_at_once(rate, times, wanted):
    now, higher = 1_000.0, rate * times
    _, state = grant(0.0, now, rate, wanted)
    tokens, state = grant(state, now, higher, 1)
    assert tokens.seconds <= (1 + 1e-6) / higher + 1e-9
    if not tokens.granted:
        tokens, _ = grant(state, now + tokens.seconds + 1e-6, higher, 1)
    assert tokens.granted == 1


@given(st.floats(1e-4, 10_000), st.integers(1, 500), st.floats(0, 1e6))
def test_a_clock_that_was_put_back_holds_nobody_up(rate, wanted, back):
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
def test_while_an_edit_spreads_the_higher_of_the_two_rates_is_the_limit(rates, steps):
    state, now, granted, higher = 0.0, 1_000.0, 0, max(rates)
    for pause, wanted, which in steps:
        now += pause
        tokens, state = grant(state, now, rates[which], wanted)
        granted += tokens.granted
        assert granted <= max(1.0, higher * BURST) + higher * (now - 1_000.0) + 1e-3


@given(
    st.floats(0.1, 10_000),
    st.floats(0.001, 1),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 500)), max_size=50),
)
def test_a_rate_that_was_lowered_holds_at_once(rate, times, steps):
    lower, now, granted = rate * times, 1_000.0, 0
    _, state = grant(0.0, now, rate, 500)
    for pause, wanted in steps:
        now += pause
        tokens, state = grant(state, now, lower, wanted)
        granted += tokens.granted
        assert granted <= max(1.0, lower * BURST) + lower * (now - 1_000.0) + 1e-3
