"""Decisions of the retry policy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from abe_router.routing.policies import GiveUp, RetryPolicy, TryAgain

policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 50),
    initial=st.floats(0, 60),
    factor=st.floats(1, 10),
    max=st.floats(0, 3600),
    jitter=st.booleans(),
)


def test_delays_grow_by_the_factor_up_to_the_longest():
    policy = RetryPolicy(initial=1, factor=3, max=20, jitter=False)
    assert [policy.delay(n) for n in range(1, 6)] == [1, 3, 9, 20, 20]


def test_attempts_include_the_first_one():
    assert RetryPolicy(attempts=1).decide(1) == GiveUp()
    assert RetryPolicy(attempts=2, jitter=False).decide(1) == TryAgain(0.2)


def test_a_handler_may_set_the_delay_but_not_the_limit():
    assert RetryPolicy(attempts=2).decide(1, after=7) == TryAgain(7)
    assert RetryPolicy(attempts=2).decide(2, after=7) == GiveUp()


@given(policies, st.integers(1, 10_000))
def test_delay_is_never_negative_or_over_the_maximum(policy, attempt):
    decision = policy.decide(attempt)
    if attempt >= policy.attempts:
        assert decision == GiveUp()
    else:
        assert isinstance(decision, TryAgain)
        assert 0 <= decision.delay <= policy.max


def test_the_window_is_the_sum_of_the_longest_delays():
    assert RetryPolicy(attempts=4, initial=1, factor=2, max=100).window() == 1 + 2 + 4
