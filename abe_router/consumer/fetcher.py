"""Fetches deliveries as fast as the slots use them up, and as the rate of the route permits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from functools import partial

from abe_router.backend import Backend, Delivery, Subscription
from abe_router.backoff import wait_for_event
from abe_router.consumer.backend_calls import BackendCalls
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.consumer.limits import Throttle
from abe_router.consumer.pool import WorkerPool
from abe_router.consumer.prefetch import MAX_FETCH, Prefetch
from abe_router.consumer.shutdown import Shutdown
from abe_router.consumer.suspects import SuspectGate, group_of, runs_alone, suspects_of
from abe_router.routing.route import Route

#: A fetch of fewer deliveries than these returned what had just come; a fuller one shows a backlog.
_BACKLOG = 8
#: With more outcomes than these unsettled nothing is fetched. So many pile up only while the backend refuses
#: to store them.
MAX_UNSETTLED = 4 * MAX_FETCH
#: How long one fetch waits for a message, in seconds; a stop interrupts it.
FETCH_WAIT = 5.0
#: Longest wait for other routes that probe, in seconds: one of them may meet an error again and again.
PROBE_WAIT = 1.0
#: How long a probe waits for a suspect that was handed back, in seconds.
PROBE_SECONDS = 0.3

# The fetcher is in one state at a time:
#
#   full      the buffer is above the low-water mark, or too much is unsettled; it waits for `capacity`
#   careful   it fetches a probe: one delivery, or as many as a group of suspects; before the next fetch the
#             group has ended, and one that runs alone is settled
#   fetching  a fetch is under way, or is repeated after an error of the backend
#   pacing    what it fetched is withheld, and it waits for tokens of the rate limiter
#   paused    it fetches nothing, and has handed back what was withheld
#   ended     a stop was requested, the subscription is closed, or a fault of the package was met
#
# Transitions:
#
#   careful  -> fetching           the probe brought no suspect; it begins as careful
#   fetching -> careful            suspects came, and are handed back; or another route holds some
#   full     -> fetching           there is room: `capacity` was set by a slot, the settler or a lost lease
#   fetching -> full | fetching    deliveries came, and went into the buffer; or none came
#   fetching -> pacing             deliveries came, and the route has a rate
#   pacing   -> full | fetching    everything withheld was permitted or lost
#   any      -> paused             an operator paused the route; a fetch under way is interrupted
#   paused   -> careful | fetching the pause ended
#   any      -> ended
#
# Invariants: one fetch at a time. A fetch under way is interrupted, and cancelled only if the consumer is:
# what a cancelled fetch has leased is out of reach until the leases end. What was fetched is in flight before
# the fetcher awaits anything. No fetch begins while a lease of what is in flight may have run out.


class Fetcher:
    """Keeps the worker pool in deliveries; `run` is called once."""

    def __init__(
        self,
        route: Route,
        subscription: Subscription,
        backend: Backend,
        calls: BackendCalls,
        in_flight: InFlight,
        lease_keeper: LeaseKeeper,
        pool: WorkerPool,
        prefetch: Prefetch,
        suspects: SuspectGate,
        throttle: Throttle,
        shutdown: Shutdown,
    ) -> None:
        self._route, self._subscription, self._backend = route, subscription, backend
        self._calls, self._in_flight, self._pool = calls, in_flight, pool
        self._lease_keeper, self._suspects = lease_keeper, suspects
        # An ordered subscription is careful itself, and without leases nothing comes back.
        self._is_plain = in_flight.ordering is None
        self._careful = self._is_plain and backend.features.leases
        # How many deliveries a probe asks for, and how long it waits: not at all before there were suspects.
        self._probe_size, self._probe_seconds, self._interrupted = 1, 0.0, False
        self._capacity = route.concurrency * (route.batch.size if route.batch else 1)
        self._prefetch, self._throttle, self._stop = prefetch, throttle, shutdown.requested

    async def run(self) -> None:
        """Fetch until a stop is requested; raise SubscriptionClosed when the subscription is closed."""
        in_flight, pool, prefetch = self._in_flight, self._pool, self._prefetch
        throttle, clock = self._throttle, asyncio.get_running_loop().time
        while not self._stop.is_set():
            if throttle.paused:
                throttle.changed.clear()
                await throttle.changed.wait()
                continue
            if self._room() < max(1, prefetch.low_water) or in_flight.unsettled > MAX_UNSETTLED:
                in_flight.capacity.clear()
                await in_flight.capacity.wait()
                continue
            if self._careful or (self._is_plain and self._suspects.is_busy):
                await self._fetch_carefully()
                continue
            asked_at = clock()
            prefetch.asking(asked_at, pool.handling_time)
            in_flight.low_water = prefetch.low_water
            limit = min(max(1, self._room()), MAX_FETCH)
            with self._suspects.fetching(self._subscription.interrupt):
                deliveries = await self._calls.repeat(partial(self._fetch, limit))
                suspects = set(suspects_of(deliveries or ())) if self._is_plain else set[Delivery]()
                if deliveries and suspects:
                    # Another route may hold one. So a probe fetches them again, when it may.
                    self._careful = True
                    in_flight.track(asked_at)
                    await self._separate(deliveries, suspects)
            if suspects:
                await self._pass_on()
                continue
            # One that is half full may have left more behind: a pattern has many streams to share the limit.
            prefetch.fetched(clock(), full=deliveries is not None and 2 * len(deliveries) >= limit)
            if not deliveries:
                # A provider whose fetch returns without waiting must not keep the loop from everything else.
                await asyncio.sleep(0)
                continue
            if self._is_plain:  # deliveries of an ordered route are tracked already
                in_flight.track(asked_at)
            if throttle.rate is None and not throttle.paused:
                pool.add(deliveries)
                if len(deliveries) < _BACKLOG:
                    # Low traffic: start these handlers before fetching again. Latency counts most.
                    await asyncio.sleep(0)
            else:
                in_flight.withheld.extend(deliveries)
                await self._pass_on()
            del deliveries  # or an idle route keeps the last ones, settled by now, in memory

    async def _fetch_carefully(self) -> None:
        """Fetch a probe; fetch nothing else until the suspects in it have ended; see `_run`."""
        gate, in_flight = self._suspects, self._in_flight
        self._interrupted = False
        async with gate.probe(self._interrupt_probe):
            asked_at = asyncio.get_running_loop().time()
            # Beside the suspects of others it has to wait, because nothing else slows it down.
            seconds = max(self._probe_seconds, PROBE_SECONDS if gate.is_busy else 0.0)
            found = await self._calls.repeat(partial(self._fetch, self._probe_size, seconds))
            suspects = suspects_of(found or ())
            self._careful = found is None or bool(suspects) or self._interrupted
            if not suspects:
                gate.release(in_flight)  # it may have waited for one that another process has settled
            if not found:
                return
            in_flight.track(asked_at)
            kept = await self._sort_out(found, suspects)
        if kept:
            await gate.end_fetches(in_flight, PROBE_WAIT)
        await self._run(kept)
        if suspects and not kept:
            alone = runs_alone(suspects[0], self._route.delivery_limit)
            while not (gate.admits(in_flight, alone=alone) or self._stop.is_set()):
                await gate.wait()

    def _interrupt_probe(self) -> None:
        self._interrupted = True
        self._subscription.interrupt()

    async def _sort_out(
        self, deliveries: Sequence[Delivery], suspects: Sequence[Delivery]
    ) -> Sequence[Delivery]:
        """Withhold what is no suspect, and the suspects that may run now, which are returned.

        Hand back the others.
        """
        limit = self._route.delivery_limit
        kept = group_of(suspects, limit, self._capacity)
        if kept:
            self._probe_seconds = PROBE_SECONDS
            if not self._suspects.acquire(self._in_flight, alone=runs_alone(kept[0], limit)):
                kept = ()
            # One that runs alone is expected after another, and then none is fetched beside it.
            self._probe_size = 1 if any(runs_alone(each, limit) for each in suspects) else self._capacity
        await self._separate(deliveries, set(suspects).difference(kept))
        return kept

    async def _separate(self, deliveries: Sequence[Delivery], others: Collection[Delivery]) -> None:
        """Hand back `others`, and withhold the rest."""
        self._in_flight.withheld.extend(each for each in deliveries if each not in others)
        if others:
            self._pool.hand_back(others)
            await self._settled(others)

    async def _run(self, suspects: Sequence[Delivery]) -> None:
        """Pass on what is withheld, and wait until the suspects in it are settled.

        Of a group it is enough that all have ended: what the next death counts against them leaves them
        deliveries for runs alone. Suspects go before what is buffered: other routes wait for their end.
        """
        await self._pass_on(first=bool(suspects))
        if not suspects:
            return
        if runs_alone(suspects[0], self._route.delivery_limit):
            await self._settled(suspects)
        else:
            await self._until_not(self._in_flight.has_unended, suspects)
        if not self._stop.is_set():  # otherwise they may still run
            self._suspects.release(self._in_flight)

    async def _settled(self, deliveries: Collection[Delivery]) -> None:
        """Wait until none of the deliveries is in flight."""
        await self._until_not(self._in_flight.holds, deliveries)

    async def _until_not(
        self, holds: Callable[[Collection[Delivery]], bool], deliveries: Collection[Delivery]
    ) -> None:
        capacity = self._in_flight.capacity
        while holds(deliveries) and not self._stop.is_set():
            capacity.clear()
            await capacity.wait()

    async def _fetch(self, limit: int, wait: float = FETCH_WAIT) -> Sequence[Delivery]:
        """Fetch once no lease may have run out: the fetch would take again what is in flight here."""
        leases, clock = self._in_flight.leases, asyncio.get_running_loop().time
        while clock() > leases.overdue_at and not self._stop.is_set():
            if (error := await self._lease_keeper.renew()) is not None:
                raise error
        fetch = self._subscription.fetch
        if self._calls.connected:
            return await fetch(limit, wait)
        # In an outage it waits for no message, so that the end is noticed at once. It asks twice, because
        # a fetch that was interrupted returns without asking.
        return await fetch(limit, 0.0) or await fetch(limit, 0.0)

    def _room(self) -> int:
        """Return how many more deliveries to hold: for the free slots, and ahead of them."""
        in_flight = self._in_flight
        return self._capacity - len(in_flight.buffer) - in_flight.running_count + self._prefetch.depth

    async def _pass_on(self, *, first: bool = False) -> None:
        """Buffer what is withheld, as the rate permits, over all processes; hand it back once paused.

        With `first` it goes before what is buffered already.
        """
        name, withheld, throttle = self._route.name, self._in_flight.withheld, self._throttle
        while withheld and not self._stop.is_set():
            if throttle.paused:
                self._pool.hand_back(withheld[:])
                withheld.clear()
                return
            if throttle.rate is None:
                permitted = withheld[:]
            else:
                take = partial(self._backend.take_tokens, name, throttle.rate, len(withheld))
                throttle.changed.clear()
                if (grant := await self._calls.repeat(take)) is None:
                    return
                if not grant.granted:
                    await wait_for_event(throttle.changed, grant.seconds)
                    continue
                permitted = withheld[: grant.granted]
            del withheld[: len(permitted)]
            self._pool.add(permitted, first=first)
