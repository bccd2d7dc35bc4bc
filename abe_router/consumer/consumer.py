"""Runs one route: fetches as far ahead as the handlers keep up, and stops without losing anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from abe_router.backend import Backend, Features, Subscription
from abe_router.backoff import Backoff, LogThrottle, wait_for_event
from abe_router.consumer.attempt import Around, Attempts
from abe_router.consumer.backend_calls import BackendCalls, Recovery
from abe_router.consumer.disposition import DispositionPolicy
from abe_router.consumer.fetcher import Fetcher
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.consumer.limits import NO_LIMITS, RouteLimits, Throttle
from abe_router.consumer.ordering import OrderedSubscription
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.pool import WorkerPool
from abe_router.consumer.prefetch import Prefetch
from abe_router.consumer.settler import Settler
from abe_router.consumer.shutdown import SHUTDOWN_GRACE, Shutdown
from abe_router.consumer.stall_monitor import StallMonitor
from abe_router.consumer.suspects import SuspectGate
from abe_router.errors import BackendError, SubscriptionClosed
from abe_router.observe.events import ConsumerStarted, ConsumerStopped, Events
from abe_router.observe.tally import RouteCounts, RouteTally
from abe_router.observe.tracing import Tracing
from abe_router.routing.route import Route

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: Interval at which a consumer asks whether it may subscribe, in seconds.
ADMIT_EVERY = 0.1


class Consumer:
    """Runs one route until it is stopped.

    `run` is called once. `revision` is that of the route table, `threads` runs plain handlers. `around`
    makes a context manager for each call of the handler, and `tracing` a span; see `Attempts`. `limits` may
    be changed while it runs. `recovery`, `suspects` and `stalls` are shared by the consumers of a process.
    `tally` counts what it does, after what an earlier consumer of the route has done. Before it subscribes,
    it asks `admit` with the name of the route, again and again until that returns True.

    When its subscription is closed by something else, the consumer lets its handlers end and subscribes anew.
    When one of its parts fails by a fault of this package or of a provider, it hands back what it can and
    raises the error.
    """

    def __init__(
        self,
        route: Route,
        backend: Backend,
        events: Events,
        *,
        revision: str,
        threads: Executor,
        around: Around | None = None,
        tracing: Tracing | None = None,
        limits: RouteLimits = NO_LIMITS,
        recovery: Recovery | None = None,
        suspects: SuspectGate | None = None,
        stalls: StallMonitor | None = None,
        tally: RouteTally | None = None,
        admit: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self.route = route
        self._backend, self._events, self._admit = backend, events, admit
        feasible = _feasible(route, backend.features)
        self._policy = DispositionPolicy(feasible, revision=revision, report_handled=events.wants_handled)
        self._attempts = Attempts(feasible, self._policy, threads=threads, around=around, tracing=tracing)
        ordered = route.order_by is not None and backend.features.order
        self._stalls = stalls or StallMonitor()
        keys = OrderingKeys(route.order_by or "") if ordered else None
        self._in_flight = InFlight(route.lease, route.max_unacked, keys, on_busy=self._stalls.wake)
        self._throttle = Throttle(route.rate, limits)
        self._prefetch = Prefetch(allowed=self._may_prefetch)
        self._subscription: Subscription | None = None
        self._suspects, self._tally = suspects or SuspectGate(), tally or RouteTally()
        self._shutdown = Shutdown(route.drain)
        self._calls = BackendCalls(route.name, events, self._shutdown, recovery or Recovery())
        #: Set once it has its subscription, or has seen that the backend cannot be reached, or has ended.
        self.started = self._calls.tried
        #: How many handlers were still running when the drain time was over.
        self.abandoned = 0
        self.released = 0

    @property
    def in_flight(self) -> int:
        """How many deliveries it holds: fetched, and not yet settled."""
        return len(self._in_flight)

    @property
    def connected(self) -> bool:
        """Whether the last call of the backend met no error."""
        return self._calls.connected

    def counts(self) -> RouteCounts:
        """Return what the route has done so far in this process, and what it does now."""
        in_flight, route = self._in_flight, self.route
        held, running = len(in_flight), in_flight.running_count
        prefetched = held - running - in_flight.unsettled
        slots = route.concurrency * (route.batch.size if route.batch else 1)
        return self._tally.counts(in_flight=held, running=running, prefetched=prefetched, slots=slots)

    def limit(self, limits: RouteLimits) -> None:
        """Put limits into force at once.

        Once it is paused, the consumer hands back what it fetches, and finishes what it had fetched before,
        except what its rate did not permit yet.
        """
        if not self._throttle.change(limits):
            return
        self._prefetch.allow(self._may_prefetch)
        if self._subscription is not None:
            self._subscription.interrupt()

    @property
    def _may_prefetch(self) -> bool:
        return self._backend.features.leases and self._throttle.rate is None

    def stop(self, drain: float | None = None) -> None:
        """Stop fetching; `run` ends once the running handlers have, after `drain` seconds at the latest.

        None means the route's own drain time. Idempotent, from any task; a later call may shorten the time.
        """
        self._shutdown.request(drain)

    async def run(self) -> None:
        """Consume until stopped; hand back what was not started, or not finished in time."""
        try:
            subscription = await self._subscribe()
        finally:
            self.started.set()
        if subscription is None:
            return
        self._events.emit(ConsumerStarted(self.route.name, self.route.handler.path))
        if self.route.paused:
            try:
                await self._shutdown.requested.wait()
            finally:
                await self._close(subscription)
            return
        try:
            await self._consume(subscription)
        finally:
            stopped = self.released, self.abandoned, self._shutdown.seconds
            self._events.emit(ConsumerStopped(self.route.name, *stopped))
        if self._shutdown.error is not None:
            raise self._shutdown.error

    async def _subscribe(self) -> Subscription | None:
        """Subscribe, trying again while the backend cannot be reached; return None when stopped before."""
        route, backend, in_flight = self.route, self._backend, self._in_flight
        terms = {"start": route.start, "lease": route.lease}
        if in_flight.ordering is None:
            return await self._once_admitted(partial(backend.subscribe, route.key, route.group, **terms))
        subscribe = partial(backend.subscribe_exclusive, route.key, route.group, **terms)
        handle = await self._once_admitted(subscribe)
        if handle is None:
            return None
        return OrderedSubscription(
            handle,
            in_flight.ordering,
            in_flight,
            self._suspects,
            throttle=self._throttle,
            concurrency=route.concurrency,
            delivery_limit=route.delivery_limit,
        )

    async def _once_admitted(self, subscribe: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `subscribe` returns once `admit` allows it; None when stopped before."""

        async def call() -> T | None:
            while self._admit is not None and not await self._admit(self.route.name):
                if await wait_for_event(self._shutdown.requested, ADMIT_EVERY):
                    return None
            return await subscribe()

        return await self._calls.repeat(call)

    async def _consume(self, subscription: Subscription | None) -> None:
        """Consume until stopped, from one subscription after the other."""
        loop = asyncio.get_running_loop()
        backoff, throttle, quiet_at = Backoff(), LogThrottle(), loop.time()
        while subscription is not None:
            began_at = loop.time()
            renews = self._backend.features.leases
            with self._stalls.monitoring(self.route, subscription, self._in_flight, renews=renews):
                closed = await self._consume_from(subscription)
            if closed is None:
                return
            if loop.time() - began_at > backoff.longest:
                backoff.reset()
                throttle, quiet_at = LogThrottle(), loop.time()
            if throttle.is_due(loop.time() - quiet_at):
                _log.warning("%s: subscribing anew: %s", self.route.name, closed)
            if await wait_for_event(self._shutdown.requested, backoff.next()):
                return
            subscription = await self._subscribe()

    async def _consume_from(self, subscription: Subscription) -> SubscriptionClosed | None:
        """Consume until stopped, or until the subscription is closed; return why it is.

        In either case what is in flight is settled or handed back before.
        """
        route, in_flight, shutdown = self.route, self._in_flight, self._shutdown
        recovery = self._calls.recovery
        lease_keeper = LeaseKeeper(route, subscription, in_flight, self._events, recovery, self._tally)
        settler = Settler(
            route, subscription, in_flight, self._policy, self._events, recovery, shutdown, self._tally
        )
        pool = WorkerPool(route, self._attempts, in_flight, lease_keeper, settler, shutdown, self._tally)
        fetcher = Fetcher(
            route,
            subscription,
            self._backend,
            self._calls,
            in_flight,
            lease_keeper,
            pool,
            self._prefetch,
            self._suspects,
            self._throttle,
            shutdown,
        )
        self._subscription = subscription
        closed: SubscriptionClosed | None = None
        try:
            async with asyncio.TaskGroup() as parts:
                settling = parts.create_task(self._guard(settler.run()))
                others = [
                    self._guard(lease_keeper.run()),
                    self._guard(pool.run()),
                    self._guard(self._interrupt(subscription)),
                ]
                running = [parts.create_task(part) for part in others]
                try:
                    try:
                        await fetcher.run()
                    except SubscriptionClosed as error:
                        closed = None if shutdown.requested.is_set() else error
                    except Exception as error:  # noqa: BLE001  as in `_guard`
                        shutdown.fail(error)
                    self.released += pool.stop() + in_flight.waiting
                    self.abandoned += await pool.drain()
                finally:
                    # When the consumer is cancelled, what is still in flight is handed back here.
                    self.released += pool.stop()
                    self.abandoned += pool.abandon()
                    settler.finish()
                    while closed is not None and not (settling.done() or shutdown.requested.is_set()):
                        await asyncio.wait({settling}, timeout=0.1)
                    await asyncio.wait({settling}, timeout=SHUTDOWN_GRACE + 1)
                    for task in (settling, *running):
                        task.cancel()
        finally:
            self._subscription = None
            await self._close(subscription)
            self._suspects.release(in_flight)
            in_flight.clear()
        return closed

    async def _guard(self, part: Coroutine[Any, Any, None]) -> None:
        """Run a part; if it fails, stop with its error, so that the others end as they do at a stop."""
        try:
            await part
        except Exception as error:  # noqa: BLE001  whatever it is, it ends the consumer
            self._shutdown.fail(error)

    async def _interrupt(self, subscription: Subscription) -> None:
        """Wake the fetcher once a stop is requested."""
        await self._shutdown.requested.wait()
        subscription.interrupt()
        self._in_flight.capacity.set()
        self._throttle.changed.set()

    async def _close(self, subscription: Subscription) -> None:
        try:
            await subscription.close()
        except BackendError as error:
            _log.debug("closing the subscription of %s: %s", self.route.name, error)


def _feasible(route: Route, features: Features) -> Route:
    """Return the route with only those policies that its backend can carry out."""
    if not features.delays:
        route = replace(route, retry=replace(route.retry, attempts=1))
    if not features.dead_letters:
        route = replace(route, dead_letter=False)
    return route
