"""The handles by which a consumer takes and settles the messages of a subscription."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from abe_router.backend.delivery import Delivery, Outcome


class Subscription(ABC):
    """A live handle on one subscription, used by one consumer."""

    pattern: str
    group: str

    @abstractmethod
    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries, as soon as there is one, or none after `wait` seconds.

        Each is leased to this handle: no other handle gets it before the lease ends. New messages, due
        retries and deliveries whose lease ended elsewhere all come this way, with or without new traffic.
        Messages of one key come in the order they were appended, except for retries. Only one fetch of a
        handle runs at a time. Raise SubscriptionClosed once the handle or its backend is closed, also when
        it is closed while the fetch waits.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once with whatever it has."""

    @abstractmethod
    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, all or some; return the deliveries that were refused.

        A delivery is refused when this handle no longer holds its lease, because it was settled before or
        handed out again: nothing changes for it. A lease that ended is still held until another handle takes
        the delivery. Each outcome is carried out whole or not at all. Settling again after an error is safe:
        what was settled before is then refused. A BackendError may have those deliveries as its `settled`.
        """

    @abstractmethod
    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the lease of each delivery anew; return those whose lease was already lost."""

    @abstractmethod
    async def close(self) -> None:
        """Close the handle. Idempotent. What is not settled comes back after its lease."""


class ExclusiveSubscription(Subscription):
    """A handle that delivers only while it owns the subscription, which one exclusive handle does at a time.

    It acquires the ownership by fetching, when that is free and no other handle holds a lease. The ownership
    is free when there was no owner, when the owner was closed, or when the owner neither fetched nor extended
    for the length of its lease. An owner keeps it by fetching, also while a fetch waits, and by extending.
    All that the former owner has in flight moves with the ownership, in the same step: the former owner can
    neither settle nor extend any of it. Handles that are not exclusive may still fetch. A provider may keep
    an ownership for each key of a pattern.

    `fetch` waits for the ownership. It then returns everything that was handed out or delayed, is not settled
    and not in flight at this handle, before anything new and whether or not it is due: `Delivery.wait` is the
    time that is left. The messages of one key come in the order they were appended. The step that hands out
    also checks the ownership.
    """

    @abstractmethod
    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        """Note that attempts failed, keep their messages, and return the deliveries of the next attempts.

        Each comes with the seconds after which its next attempt is due. If this handle loses the ownership,
        the new owner gets it with the rest. As after `Delayed`, the attempt and the time of the first failure
        are counted, and the delivery that failed can no longer be settled; see `Delivery.next_attempt`. None
        is returned for a delivery whose lease was lost.
        """
