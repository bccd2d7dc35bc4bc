"""The handle by which one consumer at a time takes the messages of a subscription in their order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from abe_router.backend.delivery import Delivery
from abe_router.backend.subscription import Subscription


class ExclusiveSubscription(Subscription):
    """A handle that hands out only while it has the place, which of all exclusive ones only one has.

    It gets the place by fetching, once that is free: nobody had it, or who had it was closed, or did
    neither fetch nor extend for the length of its lease; and nobody else holds a lease. It keeps the place
    by fetching, also while a fetch waits, and by extending. With the place goes what was in hand, in the
    same step: nothing of it can be settled or extended any more by who had it. Handles that are not
    exclusive are not kept from fetching. Where a pattern has several keys, a provider may give out the place
    of each apart.

    `fetch` waits for the place, and then returns, before anything new, all that was handed out or put off
    and is neither settled nor in this handle's hand, whether or not it is due: `Delivery.wait` tells. The
    messages of one key come in the order they were appended. Whether it is still its place is looked at in
    the step that hands out.
    """

    @abstractmethod
    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        """Note that attempts failed, keep their messages, and return the deliveries of the next attempts.

        Each is to be tried again after that many seconds: should this handle lose it, it comes with the
        rest of them. As after `Delayed`, the attempts and the time of the first failure are counted, and the
        delivery that failed can be settled no more. None stands for one whose lease was lost.
        """
