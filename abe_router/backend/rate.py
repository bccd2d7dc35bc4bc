"""The rate limiter of routes: the generic cell rate algorithm of ATM Forum's "Traffic Management 4.0".

Its whole state is one time: when the tokens granted so far are used up at the permitted rate.
"""

from __future__ import annotations

from typing import NamedTuple

#: A burst is what the rate allows in this time, in seconds, and at least one token.
BURST = 0.1


class TokenGrant(NamedTuple):
    """How many tokens were granted, and, if none was, after how many seconds there is one."""

    granted: int
    seconds: float


def grant(used_until: float, now: float, rate: float, wanted: int) -> tuple[TokenGrant, float]:
    """Grant at most `wanted` tokens at `rate` a second; return them and the new state.

    `used_until` is the state, 0 at first; both times are in seconds by the same clock. The state is never
    further ahead than a full burst at this rate, whatever a lower rate or a clock that was set back left.
    """
    burst = max(1.0, rate * BURST)
    used_until = min(max(used_until, now), now + burst / rate)
    left = burst - (used_until - now) * rate
    # Without the tolerance, rounding withholds the token of an exact interval.
    granted = max(0, min(wanted, int(left + 1e-9)))
    seconds = 0.0 if granted or not wanted else (1.0 - left) / rate
    return TokenGrant(granted, seconds), used_until + granted / rate
