"""Carries out verdicts, in batches as large as piled up while the one before was on its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from abe_router.backend import Acked, Delivery, Outcome, Subscription
from abe_router.backoff import Backoff, LogThrottle
from abe_router.consumer.disposition import Verdict
from abe_router.consumer.lease_keeper import Leases
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.observe.events import Event, Events, LeaseLost
from abe_router.routing.route import Route

_log = logging.getLogger(__name__)

#: How long settling is tried, while the backend cannot be reached, once the consumer stops, in seconds.
LAST_WORDS = 5.0
#: How long an outage lasts before it is told of from here too, in seconds; fetching tells of most at once.
UNTOLD = 5.0

Settlement = tuple[Delivery, Outcome]


class Settler:
    """Settles what it is given; `run` ends after `finish`, once nothing is left.

    It goes on trying as long as `leases` are kept. `failed` gives the verdict on a handled message whose
    outputs cannot be kept. `done` is called after each batch, `forget` with what was refused or given up.
    """

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        events: Events,
        leases: Leases,
        *,
        failed: Callable[[Delivery, Exception], Verdict],
        done: Callable[[], None],
        forget: Callable[[Collection[Delivery]], None],
    ) -> None:
        self._route, self._subscription, self._events = route, subscription, events
        self._leases, self._failed, self._done, self._forget = leases, failed, done, forget
        self._waiting: list[Settlement] = []
        self._under_way: Sequence[Settlement] = ()
        #: What there is to tell of those that wait; of most there is nothing.
        self._told: list[tuple[Delivery, Event]] = []
        self._wanted = asyncio.Event()
        self._finishing = False

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way)

    def __iter__(self) -> Iterator[Delivery]:
        """Go through the deliveries that are not settled yet."""
        for batch in (self._under_way, self._waiting):
            for delivery, _ in batch:
                yield delivery

    def add(self, delivery: Delivery, verdict: Verdict) -> None:
        """Have a verdict carried out soon."""
        if not self._waiting:
            self._wanted.set()
        outcome, event = verdict
        self._waiting.append((delivery, outcome))
        if event is not None:
            self._told.append((delivery, event))

    def finish(self) -> None:
        """Let `run` end once nothing is left, and be less patient with the backend."""
        self._finishing = True
        self._wanted.set()

    async def run(self) -> None:
        """Settle until finished."""
        while not (self._finishing and not self._waiting):
            await self._wanted.wait()
            if not self._finishing:
                self._wanted.clear()
            while self._waiting:
                told, self._told = self._told, []
                self._under_way, self._waiting = self._waiting, []
                await self._settle(self._under_way, told)
                self._under_way = ()
                self._done()

    async def _settle(self, batch: Sequence[Settlement], told: Sequence[tuple[Delivery, Event]]) -> None:
        failures = dict[Delivery, Event | None]()
        refused = dict.fromkeys(await self._persist(batch, failures))
        if refused:
            self._forget(refused)
        for delivery in refused:
            message = delivery.message
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))
        for delivery, event in [*((d, e) for d, e in told if d not in failures), *failures.items()]:
            if delivery not in refused and event is not None:
                self._events.emit(event)

    async def _persist(
        self, batch: Sequence[Settlement], failures: dict[Delivery, Event | None]
    ) -> Sequence[Delivery]:
        """Return what was refused; try again while the backend is away, as long as the leases can last."""
        clock = asyncio.get_running_loop().time
        backoff, throttle, began = Backoff(), LogThrottle(), clock()
        refused: list[Delivery] = []
        left, at_once = batch, True
        while True:
            try:
                if at_once:
                    return await self._subscription.settle(left)
                while left:
                    refused += await self._settle_one(left[0], failures)
                    left = left[1:]
                return refused
            except BackendUnavailable as error:
                left = _without(left, error.settled)
                # A server that is out of memory renews leases and keeps no outputs. Giving up while the lease
                # is ours would have the handler run again, and again, for what it has done.
                leased = max(began, self._leases.began_at) + self._route.lease
                lasted = clock() - began
                if clock() > (began + LAST_WORDS if self._finishing else leased):
                    _log.error("%s: %d settlements given up: %s", self._route.name, len(left), error)
                    return [*refused, *(delivery for delivery, _ in left)]
                if lasted > UNTOLD and throttle.is_due(lasted):
                    _log.warning("%s: %d outcomes not kept yet: %s", self._route.name, len(left), error)
                await asyncio.sleep(backoff.next())
            except Exception as error:  # noqa: BLE001  whatever it is, it is the fault of one of them
                settled = error.settled if isinstance(error, BackendError) else ()
                left, at_once = _without(left, settled), False

    async def _settle_one(
        self, settlement: Settlement, failures: dict[Delivery, Event | None]
    ) -> Sequence[Delivery]:
        """Settle one of a batch that as a whole cannot be; what the handler did is a failure then.

        Such as an output for a stream that is no stream, or that may not be written. No other is to suffer.
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
                    exc_info=not isinstance(error, BackendError),  # a bug, of which one wants to know where
                )
                return [delivery]
            verdict = self._failed(delivery, error)
            failures[delivery] = verdict.event
            return await self._settle_one((delivery, verdict.outcome), failures)


def _without(settlements: Sequence[Settlement], settled: Collection[Delivery]) -> Sequence[Settlement]:
    return [each for each in settlements if each[0] not in settled] if settled else settlements
