"""What the model knows of messages, subscriptions and handles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from abe_router.backend import Delivery

from .world import World


@dataclass
class Logged:
    """A message of the log; its number is its payload."""

    number: int
    id: str
    key: str
    at: float


@dataclass
class Known:
    """What the model knows of a message in one subscription."""

    logged: Logged
    place: str = "ready"  # ready, leased, delayed, dead, done
    replayed: bool = False
    deliveries: int = 0
    attempt: int = 1
    until: float = 0.0  # when the lease runs out or the retry falls due
    holder: object = None  # the handle it was handed to last
    delivery: Delivery | None = None  # the hand-out that may settle it

    def is_fresh(self, world: World) -> bool:
        """Whether it comes in the order of its key."""
        was_out = self.deliveries if world.keeps_place else self.holder
        return not (was_out or self.replayed)

    def is_available(self, now: float) -> bool:
        return self.place == "ready" or (self.place in ("leased", "delayed") and self.until <= now)

    def states(self, now: float) -> set[str]:
        """Return the states in which a peek may show it: until it is fetched also the earlier one.

        A failed message that was handed back may still be shown as delayed.
        """
        if self.place == "ready":
            return {"ready"} if self.attempt == 1 else {"ready", "delayed"}
        before = {"leased": "in_flight", "delayed": "delayed"}[self.place]
        return {before} if self.until > now else {"ready", before}

    def finish(self, place: str, until: float = 0.0) -> None:
        self.place, self.until, self.delivery = place, until, None


@dataclass
class Kept:
    """What the model knows of an entry of the key-value store."""

    value: bytes
    revision: int
    until: float


@dataclass
class Handle:
    """A handle, the length of its leases, and every delivery it ever had, stale ones too."""

    name: tuple[str, str]
    real: Any
    lease: float
    handed: list[Delivery] = field(default_factory=list)
