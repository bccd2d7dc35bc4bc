"""Sends outcomes to the backend, in batches as large as piled up while the one before was under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from abe_router.backend import RELEASED, Acked, Delivery, Released, Subscription
from abe_router.backoff import Backoff, LogThrottle
from abe_router.consumer.backend_calls import REPORT_AFTER, Recovery
from abe_router.consumer.disposition import Disposition, DispositionPolicy
from abe_router.consumer.in_flight import InFlight, Settlement
from abe_router.consumer.shutdown import SHUTDOWN_GRACE, Shutdown
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.observe.events import Event, Events, LeaseLost
from abe_router.observe.tally import RouteTally
from abe_router.routing.route import Route

_log = logging.getLogger(__name__)

#: Longest wait between two tries, as a part of the lease: another process may take over what is not settled.
LONGEST_WAIT = 0.1

#: The tally counts its records once there are so many: a batch may have one message.
FOLDED_RECORDS = 1_024

_RELEASED = Disposition(RELEASED)


class Settler:
    """Settles what was tried or is handed back; `run` ends after `finish`, once nothing is left.

    While the backend is unavailable it tries again, however long that lasts: an outcome is carried out also
    after its lease, unless another handle took the delivery. It gives up only when the consumer stops, after
    SHUTDOWN_GRACE. `policy` decides on a handled message whose outputs the backend refuses for good. `tally`
    counts what the backend has carried out.
    """

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        in_flight: InFlight,
        policy: DispositionPolicy,
        events: Events,
        recovery: Recovery,
        shutdown: Shutdown,
        tally: RouteTally,
    ) -> None:
        self._route, self._subscription, self._in_flight = route, subscription, in_flight
        self._policy, self._events = policy, events
        self._outcomes = in_flight.outcomes
        self._recovery, self._shutdown, self._tally = recovery, shutdown, tally
        #: The events of outcomes that are not sent. A success has none, and a release has None.
        self._unreported: list[tuple[Delivery, Event | None]] = []
        self._added = asyncio.Event()
        self._finishing = False

    def add(self, delivery: Delivery, disposition: Disposition) -> None:
        """Settle a delivery soon."""
        outcomes = self._outcomes
        if not outcomes:
            self._added.set()
        outcome, event, _ = disposition
        outcomes.append((delivery, outcome))
        if event is not None:
            self._unreported.append((delivery, event))

    def release(self, deliveries: Collection[Delivery]) -> int:
        """Hand deliveries back soon; return how many they are."""
        for delivery in deliveries:
            self.add(delivery, _RELEASED)
            self._unreported.append((delivery, None))
        return len(deliveries)

    def finish(self) -> None:
        """Let `run` end once nothing is left."""
        self._finishing = True
        self._added.set()

    async def run(self) -> None:
        """Settle until finished."""
        in_flight = self._in_flight
        while not (self._finishing and not in_flight.outcomes):
            await self._added.wait()
            if not self._finishing:
                self._added.clear()
            while in_flight.outcomes:
                unreported, self._unreported = self._unreported, []
                await self._settle(in_flight.start_settling(), unreported)
                in_flight.finish_settling()

    async def _settle(
        self, batch: Sequence[Settlement], unreported: Sequence[tuple[Delivery, Event | None]]
    ) -> None:
        failures = dict[Delivery, Event | None]()
        refused = dict.fromkeys(await self._persist(batch, failures))
        if refused:
            self._in_flight.break_order()
        for delivery in refused:
            message = delivery.message
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))
        events = {**dict(unreported), **failures}
        for delivery, event in events.items():
            if delivery not in refused and event is not None:
                self._events.emit(event)
        self._tally.fold(FOLDED_RECORDS)
        if not events and not refused:
            self._tally.handled += len(batch)
            return
        for delivery, outcome in batch:
            if delivery in refused:
                self._tally.count("lease_lost", "settlement")
            elif (event := events.get(delivery)) is not None:
                self._tally.count_event(event)
            elif isinstance(outcome, Released):
                self._tally.count("released")
            else:
                self._tally.handled += 1

    async def _persist(
        self, batch: Sequence[Settlement], failures: dict[Delivery, Event | None]
    ) -> Sequence[Delivery]:
        """Settle a batch; return the deliveries that were refused or given up.

        `failures` collects what the handled messages come to whose outputs were refused for good.
        """
        clock = asyncio.get_running_loop().time
        backoff = Backoff(longest=min(1.0, self._route.lease * LONGEST_WAIT))
        throttle, began_at, unavailable = LogThrottle(), clock(), False
        refused: list[Delivery] = []
        left, whole = batch, True
        while True:
            try:
                if whole:
                    refused += await self._subscription.settle(left)
                    left = ()
                while left:
                    refused += await self._settle_one(left[0], failures)
                    left = left[1:]
                if unavailable:
                    self._recovery.report()
                return refused
            except BackendUnavailable as error:
                unavailable, left = True, _without(left, error.settled)
                lasted = clock() - began_at
                if self._finishing and min(lasted, self._shutdown.seconds) > SHUTDOWN_GRACE:
                    _log.error("%s: %d settlements given up: %s", self._route.name, len(left), error)
                    return [*refused, *(delivery for delivery, _ in left)]
                if lasted > REPORT_AFTER and throttle.is_due(lasted):
                    _log.warning("%s: %d outcomes not stored yet: %s", self._route.name, len(left), error)
                # A waiting fetch could take what is not settled again, once its lease has ended.
                self._subscription.interrupt()
                await self._recovery.wait(backoff.next())
            except Exception as error:  # noqa: BLE001  one settlement is at fault, so each is settled alone
                settled = error.settled if isinstance(error, BackendError) else ()
                left, whole = _without(left, settled), False

    async def _settle_one(
        self, settlement: Settlement, failures: dict[Delivery, Event | None]
    ) -> Sequence[Delivery]:
        """Settle one of a batch that cannot be settled as a whole, so that the others are.

        Outputs that the backend refuses for good, such as those for a key of the wrong type, are a failure
        of the handler.
        """
        delivery, outcome = settlement
        try:
            return await self._subscription.settle([settlement])
        except BackendUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  as in `_persist`
            if not (isinstance(outcome, Acked) and outcome.outputs):
                _log.error(
                    "%s: the outcome of %s given up: %s",
                    self._route.name,
                    delivery.message.id,
                    error,
                    exc_info=not isinstance(error, BackendError),  # a bug needs its traceback
                )
                return [delivery]
            disposition = self._policy.failed(delivery, error)
            failures[delivery] = disposition.event
            return await self._settle_one((delivery, disposition.outcome), failures)


def _without(settlements: Sequence[Settlement], settled: Collection[Delivery]) -> Sequence[Settlement]:
    return [each for each in settlements if each[0] not in settled] if settled else settlements
