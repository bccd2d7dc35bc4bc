"""The handle by which one consumer takes and settles the messages of a subscription."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from abe_router.backend.delivery import Delivery, Outcome


class SubscriptionStatus(msgspec.Struct, frozen=True):
    """The counts of one subscription: waiting, handed out, waiting for a retry, dead.

    `oldest_at` is when the oldest message that is `ready` was accepted, in seconds since the epoch; None when
    there is none. To find it is bounded work, however many messages wait.
    """

    pattern: str
    group: str
    ready: int
    in_flight: int
    delayed: int
    dead: int
    oldest_at: float | None = None

    @property
    def name(self) -> str:
        """Its identity, `pattern/group`, which is the name of its route."""
        return f"{self.pattern}/{self.group}"


class Subscription(ABC):
    """A live handle on one subscription, used by one consumer."""

    pattern: str
    group: str

    @abstractmethod
    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries, as soon as there is one, or none after `wait` seconds.

        Each is leased to this handle: nobody else gets it before the lease runs out. New messages, due
        retries and deliveries whose lease ran out elsewhere all come this way, whether or not there is
        new traffic. Messages of one key come in the order they were appended, but for retries. Only one
        fetch of a handle runs at a time. Raise SubscriptionClosed once the handle or its backend is closed,
        also when it is closed while the fetch waits.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once with whatever it has."""

    @abstractmethod
    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, all or some; return the deliveries that were refused.

        Refused is a delivery whose lease this handle no longer holds, since it was settled before or
        handed out anew: nothing changes for it. A lease that ran out is still held while nobody else
        took the delivery. Each outcome is carried out whole or not at all. Settling again after an error
        is safe: what was settled before is refused then. A BackendError may name it as its `settled`.
        """

    @abstractmethod
    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the lease of each delivery anew; return those whose lease was already lost."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the handle. Idempotent; what is unsettled comes back after its lease."""
