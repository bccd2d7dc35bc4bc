"""The rate limiter of routes: the generic cell rate algorithm of ATM Forum's "Traffic Management 4.0".

Its state is one point in time: when the tokens granted so far are used up at the permitted rate.
"""

from __future__ import annotations

from typing import NamedTuple

#: A burst is the number of tokens that the rate allows in this time, in seconds, and at least one.
BURST = 0.1


class TokenGrant(NamedTuple):
    """The number of granted tokens. If it is 0, `seconds` is the time until the next token."""

    granted: int
    seconds: float


def grant(used_until: float, now: float, rate: float, wanted: int) -> tuple[TokenGrant, float]:
    """Grant at most `wanted` tokens at `rate` per second. Return the grant and the new state.

    `used_until` is the state, initially 0. Both times are in seconds by the same clock. The state is at most
    a full burst ahead of `now`, even after a lower rate or after the clock was set back.
    """
    burst = max(1.0, rate * BURST)
    used_until = min(max(used_until, now), now + burst / rate)
    left = burst - (used_until - now) * rate
    # Without the tolerance, rounding withholds the token of an exact interval.
    granted = max(0, min(wanted, int(left + 1e-9)))
    seconds = 0.0 if granted or not wanted else (1.0 - left) / rate
    return TokenGrant(granted, seconds), used_until + granted / rate
