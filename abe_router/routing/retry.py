"""When to try again: exponential backoff with full jitter, and the decision as a value.

Full jitter is the scheme of "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): a uniform
draw between zero and the capped exponential delay spreads retries best.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TryAgain:
    """The decision to try again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The decision that no further attempt is made."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a failed delivery is tried again.

    `attempts` counts the first one, so 1 means no retry. Delays, in seconds, grow from `initial` by
    `factor` up to `max`; with `jitter` each is drawn between zero and that value.
    """

    attempts: int = 5
    initial: float = 0.2
    factor: float = 2.0
    max: float = 30.0
    jitter: bool = True

    def delay(self, attempt: int) -> float:
        """Return the longest delay, in seconds, after failed attempt number `attempt` (from 1)."""
        try:
            grown = self.initial * self.factor ** (attempt - 1)
        except OverflowError:
            grown = self.max
        return min(self.max, grown)

    def decide(self, attempt: int, after: float | None = None) -> TryAgain | GiveUp:
        """Decide what follows failed attempt number `attempt`; `after` overrides the delay, in seconds."""
        if attempt >= self.attempts:
            return GiveUp()
        if after is not None:
            return TryAgain(after)
        longest = self.delay(attempt)
        return TryAgain(random.uniform(0, longest) if self.jitter else longest)  # noqa: S311

    def window(self) -> float:
        """Return the longest total delay, in seconds, between the first and the last attempt."""
        return sum(self.delay(attempt) for attempt in range(1, self.attempts))
