"""What an operator may change of a running consumer: whether it is paused, and its rate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """The limits of a route beside its options.

    `rate`, in messages a second, takes precedence over the route's own rate. None leaves that in force.
    """

    paused: bool = False
    rate: float | None = None


#: The limits of a route that no operator has changed.
NO_LIMITS = RouteLimits()


class Throttle:
    """The limits of a consumer now; its parts share it, and the consumer changes it.

    While it is paused, nothing is fetched and nothing that was fetched is started. A change takes effect at
    the next fetch, or at the next tokens of the rate limiter. `rate` is that of the route.
    """

    def __init__(self, rate: float | None, limits: RouteLimits = NO_LIMITS) -> None:
        self._own_rate, self._limits = rate, limits
        #: Set at each change, and when the consumer is to stop. A part that waits for it clears it first.
        self.changed = asyncio.Event()

    @property
    def paused(self) -> bool:
        """Whether nothing may be fetched or started."""
        return self._limits.paused

    @property
    def rate(self) -> float | None:
        """The rate that holds now, in messages a second; None if there is none."""
        return self._own_rate if self._limits.rate is None else self._limits.rate

    def change(self, limits: RouteLimits) -> bool:
        """Put limits into force; return False if they are in force already."""
        if limits == self._limits:
            return False
        self._limits = limits
        self.changed.set()
        return True
