"""The handles that a consumer uses to fetch and settle the messages of a subscription."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from abe_router.backend.delivery import Delivery, Outcome


class Subscription(ABC):
    """A handle on one subscription, used by one consumer."""

    pattern: str
    group: str

    @property
    def name(self) -> str:
        """Its identity, `pattern/group`, which is the name of its route."""
        return f"{self.pattern}/{self.group}"

    @abstractmethod
    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries as soon as there is one, or none after `wait` seconds.

        Each delivery is leased to this handle: no other handle gets it before the lease ends. `fetch` returns
        new messages, due retries, and deliveries whose lease ended at another handle, with or without new
        traffic. Messages of one key come in the order in which they were appended, except for retries. Only
        one fetch of a handle runs at a time. Raise SubscriptionClosed if the handle or its backend is closed,
        also if it is closed while the fetch waits.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make the waiting `fetch`, or the next one if none waits, return at once with what it has."""

    @abstractmethod
    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Apply the outcomes. Return the deliveries that were refused.

        A delivery is refused if this handle no longer holds its lease, because it was already settled or
        delivered again. Nothing changes for it. After a lease ended, the handle still holds it until another
        handle takes the delivery. Each outcome is applied completely or not at all. Settling again after an
        error is safe: deliveries that were already settled are refused. A BackendError may list them in
        `settled`.
        """

    @abstractmethod
    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Restart the lease of each delivery. Return the deliveries whose lease was already lost."""

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Restart leases as `extend` does, in another thread, while the event loop is blocked.

        This is the only method that is not called in the event loop. It blocks until the backend has
        answered, but never for the event loop: it uses a connection of its own, or a thread of the provider.
        Only one call of a handle runs at a time. The event loop may continue meanwhile, and settle the same
        deliveries. A delivery whose lease is lost stays lost, and `extend` reports it. What a running `fetch`
        has leased and not returned yet is renewed too. An exclusive handle keeps its ownership. Raise
        BackendError if a lease may not have been restarted.

        Only a backend whose features declare `leases` implements it.
        """
        raise NotImplementedError(f"{type(self).__name__} renews no leases")

    @abstractmethod
    async def close(self) -> None:
        """Close the handle. Idempotent. Unsettled deliveries come back after their lease."""


class ExclusiveSubscription(Subscription):
    """A handle that delivers only while it owns the subscription. One exclusive handle owns it at a time.

    A handle acquires the ownership by fetching, if the ownership is free and no other handle holds a lease.
    The ownership is free if there was no owner, if the owner was closed, or if the owner neither fetched nor
    extended for the length of its lease. An owner keeps it by fetching, also while a fetch waits, and by
    extending. All deliveries in flight at the former owner move with the ownership, in the same step. The
    former owner can then neither settle nor extend them. Handles that are not exclusive may still fetch. A
    provider may have a separate ownership for each key of a pattern.

    `fetch` waits for the ownership. It then returns all unsettled messages that were delivered or delayed
    before and are not in flight at this handle. It returns them before new messages, even if they are not
    due: `Delivery.wait` is the remaining time. Messages of one key come in the order in which they were
    appended. The step that delivers also checks the ownership.
    """

    @abstractmethod
    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        """Record failed attempts, keep the messages in flight, and return the next deliveries.

        Each failed delivery comes with the seconds until its next attempt is due. If this handle loses the
        ownership, the new owner gets the messages. As with `Delayed`, the attempt is counted, the time of the
        first failure is stored, and the failed delivery can no longer be settled; see
        `Delivery.next_attempt`. The result is None for a delivery whose lease was lost.
        """
