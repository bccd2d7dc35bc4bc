"""Runs one route: fetches as far ahead as the workers keep up, and stops without losing anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from abe_router.backend import RELEASED, Backend, Delivery, Features, Subscription
from abe_router.backoff import Backoff, LogThrottle, wait_for_event
from abe_router.consumer.attempt import Attempts
from abe_router.consumer.disposition import Verdict
from abe_router.consumer.lease_keeper import Leases
from abe_router.consumer.ordering import OrderedSubscription
from abe_router.consumer.pool import Crew
from abe_router.consumer.prefetch import MAX_FETCH, Lookahead
from abe_router.consumer.settler import LAST_WORDS, Settler
from abe_router.errors import BackendError
from abe_router.observe.events import BackendBack, BackendLost, ConsumerStarted, ConsumerStopped, Events
from abe_router.routing.route import Route

#: Wait after a fetch on a closed handle, in seconds.
_CLOSED_PAUSE = 0.1
_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Fewer deliveries than these were waited for; what is more is a backlog, and then asking early counts.
FEW = 8
#: With more deliveries than these that are handled and not yet settled, nothing more is fetched: there are as
#: many only when the backend refuses to settle them.
UNSETTLED = 4 * MAX_FETCH
#: How long one fetch waits for a message, in seconds; a stop interrupts it.
FETCH_WAIT = 5.0


class Consumer:
    """Runs one route until it is stopped.

    `run` is called once. `revision` is that of the route table; `threads` runs sync handlers.
    """

    def __init__(
        self, route: Route, backend: Backend, events: Events, *, revision: str, threads: Executor
    ) -> None:
        self.route = route
        self._backend, self._events = backend, events
        self._attempts = Attempts(
            _feasible(route, backend.features),
            revision=revision,
            threads=threads,
            tell_handled=events.wants_handled,
        )
        self._subscription: Subscription | None = None
        self._crew: Crew | None = None
        self._settler: Settler | None = None
        self._leases: Leases | None = None
        self._ordered: OrderedSubscription | None = None
        self._paced: list[Delivery] = []  # fetched, and kept back by the rate
        self._lookahead = Lookahead(allowed=backend.features.leases and route.rate is None)
        self._drain = route.drain
        self._stop, self._wants_fetch, self._busy = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._connected = True
        #: Set once it has its subscription, or has seen that the backend cannot be reached, or has ended.
        self.started = asyncio.Event()
        #: How many handlers were still running when the drain time was over.
        self.abandoned = 0

    @property
    def in_hand(self) -> int:
        """How many deliveries it holds: waiting, running, or not yet settled."""
        if self._crew is None or self._settler is None:
            return 0
        return self._kept + len(self._paced) + self._crew.waiting + self._crew.running + len(self._settler)

    @property
    def _kept(self) -> int:
        """How many of them wait for the order's sake."""
        return 0 if self._ordered is None else self._ordered.kept

    @property
    def connected(self) -> bool:
        """Whether the last word from the backend was not an error."""
        return self._connected

    def stop(self, drain: float | None = None) -> None:
        """Stop fetching; `run` ends once what runs has ended, after `drain` seconds at the latest.

        None means the route's own drain time. Idempotent, from any task; a later call may shorten the time.
        """
        if drain is not None:
            self._drain = min(self._drain, drain) if self._stop.is_set() else drain
        self._stop.set()
        self._wants_fetch.set()
        if self._subscription is not None:
            self._subscription.interrupt()

    async def run(self) -> None:
        """Consume until stopped; what was not started, or not finished in time, is handed back."""
        route = self.route
        try:
            subscription = await self._subscribe()
        finally:
            self.started.set()
        if subscription is None:
            return
        self._subscription = subscription
        self._events.emit(ConsumerStarted(route.name, route.handler.path))
        try:
            if route.paused:
                await self._stop.wait()
            else:
                await self._consume(subscription)
        finally:
            try:
                await subscription.close()
            except BackendError as error:
                _log.debug("closing the subscription of %s: %s", route.name, error)

    async def _subscribe(self) -> Subscription | None:
        route, backend = self.route, self._backend
        terms = {"start": route.start, "lease": route.lease}
        if route.order_by is None or not backend.features.order:
            return await self._persist(partial(backend.subscribe, route.key, route.group, **terms))
        subscribe = partial(backend.subscribe_exclusive, route.key, route.group, **terms)
        handle = await self._persist(subscribe)
        if handle is not None:
            self._ordered = OrderedSubscription(route, handle, subscribe, self._events, doubt=self._doubt)
        return self._ordered

    async def _consume(self, subscription: Subscription) -> None:
        route, events, loop = self.route, self._events, asyncio.get_running_loop()
        ahead, hungry = self._lookahead, self._wants_fetch.set
        leases = self._leases = Leases(route, subscription, events, held=self._held, drop=self._drop)
        settler = Settler(
            route,
            subscription,
            events,
            leases,
            failed=self._attempts.failed,
            done=hungry,
            forget=self._forget,
        )
        self._settler = settler
        crew = self._crew = Crew(route, self._attempts, settler, leases, ahead, hungry)
        settling = asyncio.create_task(settler.run())
        watching = asyncio.create_task(self._watch(crew, leases))
        fetching = asyncio.create_task(self._fetch_all(subscription, crew, settler, leases))
        stopping = asyncio.create_task(self._stop.wait())
        began, released = loop.time(), 0
        running: set[asyncio.Future[Any]] = {fetching, settling, watching, stopping, crew.broken}
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            began = loop.time()
            # Never cancel a fetch under way: what it has fetched would be stranded until its lease ends.
            self.stop()
            await fetching
            released = self._release([*self._paced, *crew.stop()]) + self._kept
            self._paced.clear()
            self.abandoned = self._release(await crew.finish(lambda: began + self._drain - loop.time()))
        finally:
            crew.cancel()
            settler.finish()
            fetching.cancel()
            stopping.cancel()
            await asyncio.wait({settling}, timeout=LAST_WORDS + 1)
            watching.cancel()
            settling.cancel()
            crew.broken.cancel()
            ended = await asyncio.gather(*running, return_exceptions=True)
            events.emit(ConsumerStopped(route.name, released, self.abandoned, loop.time() - began))
        for result in ended:
            if isinstance(result, Exception):
                raise result

    async def _fetch_all(
        self, subscription: Subscription, crew: Crew, settler: Settler, leases: Leases
    ) -> None:
        route, ahead, loop = self.route, self._lookahead, asyncio.get_running_loop()
        places = route.concurrency * (route.batch.size if route.batch else 1)
        while not self._stop.is_set():
            free = places - crew.waiting - crew.running
            if free + ahead.depth < max(1, ahead.low) or len(settler) > UNSETTLED:
                self._wants_fetch.clear()
                await self._wants_fetch.wait()
                continue
            asked = loop.time()
            ahead.asking(asked)
            limit = min(max(1, free + ahead.depth), MAX_FETCH)
            deliveries = await self._persist(partial(subscription.fetch, limit, FETCH_WAIT))
            ahead.fetched(loop.time(), full=deliveries is not None and len(deliveries) == limit)
            if not deliveries:
                if loop.time() - asked < _CLOSED_PAUSE:  # its handle was closed, and does not wait any more
                    await wait_for_event(self._stop, _CLOSED_PAUSE)
                continue
            if not self._busy.is_set():
                leases.forget()
                self._busy.set()
            leases.took(asked if self._ordered is None else self._ordered.leased_at)
            if route.rate is None:
                crew.add(deliveries)
                if len(deliveries) < FEW:
                    # Somebody waits for each of them: they are begun before more is asked for.
                    await asyncio.sleep(0)
            else:
                await self._pace(deliveries, crew)
            del deliveries  # or each route keeps its last ones, handled and settled, while it waits for more

    async def _pace(self, deliveries: Sequence[Delivery], crew: Crew) -> None:
        """Hand deliveries to the crew as fast as the route's rate permits, over all processes."""
        route = self.route
        self._paced = list(deliveries)
        while self._paced and not self._stop.is_set():
            permits = await self._persist(
                partial(self._backend.take_tokens, route.name, route.rate or 0.0, len(self._paced))
            )
            if permits is None:
                return
            granted, seconds = permits
            crew.add(self._paced[:granted])
            del self._paced[:granted]
            if not granted:
                await wait_for_event(self._stop, seconds)

    async def _watch(self, crew: Crew, leases: Leases) -> None:
        """End handlers whose time is up and keep the leases, as long as there is anything in hand."""
        route, loop = self.route, asyncio.get_running_loop()
        tick = max(0.01, min(route.lease / 6, route.timeout / 10, 1.0))
        while True:
            if not self.in_hand:
                self._busy.clear()
                await self._busy.wait()
            await asyncio.sleep(tick)
            now = loop.time()
            crew.expire(now)
            if leases.due(now):
                await leases.renew()

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `call` returns, trying again after backend errors until stopped; None then."""
        backoff, throttle, lost_at = Backoff(), LogThrottle(), 0.0
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            try:
                result = await call()
            except BackendError as error:
                lost_at = lost_at or loop.time()
                self._connected = False
                self.started.set()
                delay = backoff.next()
                if throttle.is_due(loop.time() - lost_at):
                    self._events.emit(BackendLost(self.route.name, str(error), delay))
                await wait_for_event(self._stop, delay)
                continue
            if not self._connected:
                self._connected = True
                self._events.emit(BackendBack(self.route.name, loop.time() - lost_at))
            return result
        return None

    def _release(self, deliveries: Sequence[Delivery]) -> int:
        for delivery in deliveries:
            if self._settler is not None:
                self._settler.add(delivery, Verdict(RELEASED))
        return len(deliveries)

    def _held(self) -> Sequence[Delivery]:
        assert self._crew is not None
        assert self._settler is not None
        return [*self._paced, *self._crew.held(), *self._settler]

    def _drop(self, lost: set[Delivery]) -> Sequence[Delivery]:
        assert self._crew is not None
        gone = [delivery for delivery in self._paced if delivery in lost]
        self._paced = [delivery for delivery in self._paced if delivery not in lost]
        gone += self._crew.drop(lost)
        self._wants_fetch.set()  # there is room again, and no worker is done to say so
        self._forget(gone)
        return gone

    def _forget(self, lost: Collection[Delivery]) -> None:
        if self._ordered is not None and lost:
            self._ordered.forget(lost)

    def _doubt(self) -> None:
        if self._leases is not None:
            self._leases.doubt()


def _feasible(route: Route, features: Features) -> Route:
    """Return the route with no policies but those that its backend can carry out."""
    if not features.delays:
        route = replace(route, retry=replace(route.retry, attempts=1))
    if not features.dead_letters:
        route = replace(route, dead_letter=False)
    return route
