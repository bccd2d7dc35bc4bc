"""How fast a route may go: the generic cell rate algorithm, as in ATM Forum's "Traffic Management 4.0".

Its whole state is one time: when the tokens given so far will have been used up at the permitted rate.
"""

from __future__ import annotations

from typing import NamedTuple

#: TokenGrant may be used in bursts of what the rate allows in this time, in seconds, and of at least one.
BURST = 0.1


class TokenGrant(NamedTuple):
    """How many tokens were granted, and in how many seconds there will be another if none was."""

    granted: int
    seconds: float


def grant(used_until: float, now: float, rate: float, wanted: int) -> tuple[TokenGrant, float]:
    """Grant at most `wanted` tokens at `rate` a second; return them and the new state.

    `used_until` is the state, 0 at first; both times are in seconds by the same clock. No more is owed than a
    full burst at this rate: not what an earlier, lower one left behind, nor a clock that was put back.
    """
    burst = max(1.0, rate * BURST)
    used_until = min(max(used_until, now), now + burst / rate)
    left = burst - (used_until - now) * rate
    # A hair of tolerance, or rounding would withhold the token of an exact interval.
    granted = max(0, min(wanted, int(left + 1e-9)))
    seconds = 0.0 if granted or not wanted else (1.0 - left) / rate
    return TokenGrant(granted, seconds), used_until + granted / rate
