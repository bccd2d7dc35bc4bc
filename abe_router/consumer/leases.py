"""Keeps the leases of what a consumer has in hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from abe_router.backend import Delivery, Subscription
from abe_router.consumer.pause import FIRST_PAUSE
from abe_router.errors import BackendError
from abe_router.event import Events, LeaseLost
from abe_router.route import Route

_log = logging.getLogger(__name__)


class Leases:
    """Renews leases, all that are in hand at once, every third of their length.

    `held` returns the deliveries in hand; `drop` takes those back that were lost.
    """

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        events: Events,
        *,
        held: Callable[[], Sequence[Delivery]],
        drop: Callable[[set[Delivery]], Sequence[Delivery]],
    ) -> None:
        self._route, self._subscription, self._events = route, subscription, events
        self._held, self._drop = held, drop
        self._renewed_at = 0.0
        #: From then on a lease may have run out: the process stood still, or its loop was blocked.
        self.overdue_at = 0.0

    def begin(self, now: float) -> None:
        """Note that everything in hand was leased at `now` or later."""
        self._renewed_at = now
        self.overdue_at = now + self._route.lease * 2 / 3

    def due(self, now: float) -> bool:
        """Say whether it is time to renew."""
        return now - self._renewed_at >= self._route.lease / 3

    async def renew(self) -> None:
        """Extend every lease; what was lost before it was started is dropped, and told."""
        began = asyncio.get_running_loop().time()
        held = self._held()
        try:
            lost = set(await self._subscription.extend(held)) if held else set()
        except BackendError as error:
            _log.warning("%s: leases not extended: %s", self._route.name, error)
            await asyncio.sleep(FIRST_PAUSE)
            return
        self.begin(began)
        for delivery in self._drop(lost) if lost else ():
            message = delivery.message
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))
