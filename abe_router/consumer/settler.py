"""Carries out verdicts, in batches as large as piled up while the one before was on its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence

from abe_router.attempt import Verdict
from abe_router.backend import Delivery, Outcome, Subscription
from abe_router.consumer.leases import Leases
from abe_router.consumer.pause import Pause
from abe_router.errors import BackendError
from abe_router.event import Event, Events, LeaseLost
from abe_router.route import Route

_log = logging.getLogger(__name__)

#: How long settling is tried, while the backend cannot be reached, once the consumer stops, in seconds.
LAST_WORDS = 5.0

Settlement = tuple[Delivery, Outcome]


class Settler:
    """Settles what it is given; `run` ends after `finish`, once nothing is left.

    It goes on trying as long as `leases` are kept. `done` is called after each batch, `forget` with what was
    refused or given up.
    """

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        events: Events,
        leases: Leases,
        *,
        done: Callable[[], None],
        forget: Callable[[Collection[Delivery]], None],
    ) -> None:
        self._route, self._subscription, self._events = route, subscription, events
        self._leases, self._done, self._forget = leases, done, forget
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
        refused = dict.fromkeys(await self._persist(batch))
        if refused:
            self._forget(refused)
        for delivery in refused:
            message = delivery.message
            self._events.emit(LeaseLost(self._route.name, message.id, message.key))
        for delivery, event in told:
            if delivery not in refused:
                self._events.emit(event)

    async def _persist(self, batch: Sequence[Settlement]) -> Sequence[Delivery]:
        """Return what was refused; try again after backend errors, as long as the leases can last."""
        clock = asyncio.get_running_loop().time
        pause, began = Pause(), clock()
        while True:
            try:
                return await self._subscription.settle(batch)
            except BackendError as error:
                # A server that is out of memory renews leases and keeps no outputs. Giving up while the lease
                # is ours would have the handler run again, and again, for what it has done.
                leased = max(began, self._leases.began_at) + self._route.lease
                if clock() > (began + LAST_WORDS if self._finishing else leased):
                    _log.error("%s: %d settlements given up: %s", self._route.name, len(batch), error)
                    return [delivery for delivery, _ in batch]
                await asyncio.sleep(pause.next())
