"""Renews the leases of what a consumer has in flight."""

from __future__ import annotations

import asyncio
import logging

from abe_router.backend import Subscription
from abe_router.backoff import Outage
from abe_router.consumer.backend_calls import REPORT_AFTER, Recovery
from abe_router.consumer.in_flight import InFlight
from abe_router.errors import BackendError
from abe_router.observe.events import Events, LeaseLost
from abe_router.observe.tally import RouteTally
from abe_router.routing.route import Route

#: Wait after a renewal that failed, in seconds.
_RETRY_DELAY = 0.1
_log = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews all leases at once, every third of their length.

    A delivery whose lease was lost before it was started is dropped, with an event.
    """

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        in_flight: InFlight,
        events: Events,
        recovery: Recovery,
        tally: RouteTally,
    ) -> None:
        self._route, self._subscription = route, subscription
        self._in_flight, self._events, self._recovery = in_flight, events, recovery
        self._tally, self._outage = tally, Outage()
        self._renewing = asyncio.Lock()

    async def run(self) -> None:
        """Renew whenever it is due, as long as anything is in flight; until cancelled."""
        in_flight, loop = self._in_flight, asyncio.get_running_loop()
        interval = max(0.01, min(self._route.lease / 6, 1.0))
        while True:
            if not len(in_flight):
                in_flight.busy.clear()
                await in_flight.busy.wait()
            await asyncio.sleep(interval)
            if in_flight.leases.is_due(loop.time()):
                await self.renew()

    async def renew(self) -> BackendError | None:
        """Extend every lease, if it is due; after an error, return it after a short wait."""
        in_flight, leases = self._in_flight, self._in_flight.leases
        clock = asyncio.get_running_loop().time
        async with self._renewing:
            now = clock()
            if not leases.is_due(now):  # another slot has just renewed them
                return None
            held = in_flight.deliveries()
            leases.start_renewal()
            try:
                lost = set(await self._subscription.extend(held)) if held else set()
            except BackendError as error:
                if self._outage.fail(quiet=REPORT_AFTER):
                    _log.warning("%s: leases not extended: %s", self._route.name, error)
                # A waiting fetch could take what is in flight again, once its lease has ended.
                self._subscription.interrupt()
                await self._recovery.wait(_RETRY_DELAY)
                return error
            if self._outage.end() is not None:
                self._recovery.report()
            # A delivery that came in flight during the renewal is not part of it.
            leases.finish_renewal(now)
        for delivery in in_flight.drop(lost) if lost else ():
            message = delivery.message
            self._tally.count("lease_lost", "renewal")
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))
        return None
