"""Keeps the leases of what a consumer has in hand."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from abe_router.backend import Delivery, Subscription
from abe_router.errors import BackendError
from abe_router.observe.events import Events, LeaseLost
from abe_router.routing.route import Route

#: Wait after a renewal that failed, in seconds.
_RETRY_PAUSE = 0.1
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
        self._renewing = asyncio.Lock()
        self._newcomers_at = math.inf
        #: The oldest lease was begun then or later.
        self.began_at = math.inf
        #: From then on a lease may have run out: the process stood still, or its loop was blocked.
        self.overdue_at = math.inf

    def forget(self) -> None:
        """Note that nothing is in hand."""
        self.began_at = self.overdue_at = math.inf

    def took(self, asked: float) -> None:
        """Note that what is new in hand was leased at `asked` or later.

        Not when it came: the process may have stood still in between, for longer than the lease.
        """
        self._newcomers_at = min(self._newcomers_at, asked)
        self._begin(min(self.began_at, asked))

    def doubt(self) -> None:
        """Have every lease renewed before anything else is started."""
        self._begin(-math.inf)

    def due(self, now: float) -> bool:
        """Say whether it is time to renew."""
        return now - self.began_at >= self._route.lease / 3

    async def renew(self) -> None:
        """Extend every lease that is due; what was lost before it was started is dropped, and told."""
        clock = asyncio.get_running_loop().time
        async with self._renewing:
            now = clock()
            if not self.due(now):  # somebody else has just done it
                return
            held, self._newcomers_at = self._held(), math.inf
            try:
                lost = set(await self._subscription.extend(held)) if held else set()
            except BackendError as error:
                _log.warning("%s: leases not extended: %s", self._route.name, error)
                await asyncio.sleep(_RETRY_PAUSE)
                return
            # What came in hand meanwhile was not among those that were extended.
            self._begin(min(now, self._newcomers_at))
        for delivery in self._drop(lost) if lost else ():
            message = delivery.message
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))

    def _begin(self, at: float) -> None:
        self.began_at = at
        self.overdue_at = at + self._route.lease * 2 / 3
