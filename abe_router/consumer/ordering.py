"""A subscription that keeps the order of `order_by`."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from contextlib import suppress

from abe_router.backend import (
    RELEASED,
    Delayed,
    Delivery,
    ExclusiveSubscription,
    Outcome,
    Released,
    Subscription,
)
from abe_router.backoff import wait_for_event
from abe_router.consumer.fetcher import FETCH_WAIT, PROBE_WAIT
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.limits import Throttle
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.prefetch import MAX_FETCH
from abe_router.consumer.suspects import SuspectGate, runs_alone, suspects_of
from abe_router.errors import BackendError, SubscriptionClosed

#: Most deliveries held at once, those included that wait for their ordering key.
MAX_HELD = 1000

# An ordered subscription is in one state at a time:
#
#   filling  it fetches from its handle, one fetch at a time, and holds less than it may
#   full     it holds as much as it may, or its handle met an error that `fetch` has not raised yet, or the
#            route is paused
#   broken   a lease was lost or an outcome refused: what follows it may be handled elsewhere
#   closed   what was not handed out is handed back, and the handle is closed
#
# Transitions:
#
#   filling -> full              the limit is reached, or the fetch failed, or a pause began
#   full    -> filling           something was settled, or the error was raised, or the pause ended
#   filling | full -> broken     `settle` or `extend` met a loss, or the settler gave an outcome up
#   any     -> closed            `close`
#
# Invariants: of an ordering key at most one delivery is handed out and not settled, and no unsettled one is
# older. Once broken, nothing more is handed out: `fetch` raises SubscriptionClosed, and the consumer waits
# for what runs, closes this subscription, and subscribes anew. The new handle begins with all unsettled ones.


class OrderedSubscription(Subscription):
    """Hands out the deliveries of an exclusive handle, each when its ordering key is free.

    The others wait, with their leases, so an ordering key that is held up holds up no other before the limit
    is reached. `in_flight`, which has `ordering`, is shared with the consumer: there they are counted, and
    their leases are renewed with all the rest.
    """

    def __init__(
        self,
        handle: ExclusiveSubscription,
        keys: OrderingKeys,
        in_flight: InFlight,
        suspects: SuspectGate | None = None,
        *,
        throttle: Throttle | None = None,
        concurrency: int = 1,
        delivery_limit: int = 1,
    ) -> None:
        self.pattern, self.group = handle.pattern, handle.group
        self._handle, self._keys, self._in_flight = handle, keys, in_flight
        self._concurrency, self._delivery_limit = concurrency, delivery_limit
        self._interrupted = self._closed = False
        self._suspects = suspects or SuspectGate()
        self._throttle = throttle or Throttle(None)
        # What was in flight when a process ended may have ended it. So one of these, or a group, is held at a
        # time until all are settled, or what is behind would count as handed out with it.
        self._careful, self._probe_size = True, 1
        self._settling: set[Delivery] = set()
        self._error: Exception | None = None
        self._room = asyncio.Event()
        self._filling: asyncio.Task[None] | None = None

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries whose ordering keys are free."""
        loop, keys = asyncio.get_running_loop(), self._keys
        deadline = loop.time() + wait
        if self._filling is None:
            self._filling = asyncio.create_task(self._fill())
        while True:
            if self._closed or keys.broken:
                raise SubscriptionClosed(f"the order of `{self.name}` is kept elsewhere")
            if self._error is not None:
                error, self._error = self._error, None
                self._room.set()
                raise error
            now = loop.time()
            taken = keys.take(limit, now)
            if taken or self._interrupted or now >= deadline:
                self._interrupted = False
                return taken
            keys.changed.clear()
            await wait_for_event(keys.changed, min(deadline, keys.next_due) - now)

    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once."""
        self._interrupted = True
        self._keys.changed.set()
        self._room.set()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, and free the ordering keys of what has ended; return what was refused."""
        # When it is repeated after an error, some may have ended: those are not here any more.
        held = [each for each in settlements if each[0] in self._keys.taken]
        self._settling = {delivery for delivery, _ in held}
        try:
            return await self._settle(held)
        finally:
            self._settling.clear()

    async def _settle(self, held: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        keys, refused = self._keys, list[Delivery]()
        ended = [each for each in held if not isinstance(each[1], Delayed | Released)]
        failed = [(delivery, outcome.seconds) for delivery, outcome in held if isinstance(outcome, Delayed)]
        if ended:
            self._refuse(await self._handle.settle(ended), refused)
            for delivery, _ in ended:
                keys.end(delivery)
        if failed:
            await self._postpone(failed, refused)
        for delivery, outcome in held:
            if isinstance(outcome, Released):
                keys.give_back(delivery)
        if not keys.active:
            self._suspects.release(self._in_flight)
        self._room.set()
        return refused

    async def _postpone(self, failed: Sequence[tuple[Delivery, float]], refused: list[Delivery]) -> None:
        keys, clock = self._keys, asyncio.get_running_loop().time
        asked_at = clock()
        retries = await self._handle.postpone(failed)
        self._in_flight.track(asked_at)
        self._refuse([d for (d, _), retry in zip(failed, retries, strict=True) if retry is None], refused)
        for (delivery, _), retry in zip(failed, retries, strict=True):
            if retry is None:
                keys.end(delivery)
            else:
                keys.replace(delivery, retry, clock())

    def _refuse(self, deliveries: Sequence[Delivery], refused: list[Delivery]) -> None:
        # Before their ordering keys are freed, or the next one of such a key could be handed out.
        if deliveries:
            refused += deliveries
            self._in_flight.break_order()

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the leases anew; return all deliveries once one was lost."""
        if not self._keys.broken:
            lost = await self._handle.extend(deliveries)
            # What is being settled may have left before; whether it was lost, `settle` says.
            if any(each in self._keys and each not in self._settling for each in lost):
                self._in_flight.break_order()
        return deliveries if self._keys.broken else ()

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Start the leases anew, unless the order is broken: what follows may be handled elsewhere then."""
        if not self._keys.broken:
            self._handle.renew(deliveries)

    async def close(self) -> None:
        """Hand back all that was not handed out, and then let go of the handle."""
        self._closed = True
        self.interrupt()
        # The fetch is not cancelled: what it brings must be handed back before another consumer takes over.
        self._handle.interrupt()
        if self._filling is not None:
            await asyncio.wait({self._filling})
        with suppress(BackendError):
            await self._handle.settle([(delivery, RELEASED) for delivery in self._keys.waiting()])
        with suppress(BackendError):
            await self._handle.close()

    async def _fill(self) -> None:
        """Fetch as long as there is room."""
        keys = self._keys
        while not self._closed:
            limit = MAX_HELD - keys.active if not self._careful else 0 if keys.active else self._probe_size
            room = min(limit, MAX_HELD - len(keys), MAX_FETCH)
            if self._error is not None or keys.broken or self._throttle.paused or room < 1:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                await self._fetch_some(room)
            except Exception as error:  # noqa: BLE001  raised by the `fetch` that waits, or the next one
                self._error = error
                keys.changed.set()

    async def _fetch_some(self, limit: int) -> None:
        gate, was_careful = self._suspects, self._careful
        async with gate.probe(self._handle.interrupt):
            asked_at = asyncio.get_running_loop().time()
            fetched = await self._handle.fetch(limit, FETCH_WAIT)
            if not fetched:
                if was_careful:
                    gate.release(self._in_flight)
                await asyncio.sleep(0)  # as the fetcher does
                return
            suspects = suspects_of(fetched)
            self._careful, kept = bool(suspects), fetched
            if suspects:
                # One that runs alone is expected after another, as in the fetcher.
                any_alone = any(runs_alone(each, self._delivery_limit) for each in suspects)
                self._probe_size = 1 if any_alone else self._concurrency
                kept = self._first_group(fetched) if was_careful else ()
                alone = runs_alone(suspects[0], self._delivery_limit)
                if kept and not gate.acquire(self._in_flight, alone=alone):
                    kept = ()
            elif was_careful:
                gate.release(self._in_flight)
            await self._hand_back(fetched[len(kept) :], kept, asked_at)
        if kept and suspects:
            await gate.end_fetches(self._in_flight, PROBE_WAIT)
        self._keep(kept, asked_at)
        if was_careful and not kept:
            while not (gate.admits(self._in_flight, alone=alone) or self._closed):
                await gate.wait()

    def _keep(self, fetched: Sequence[Delivery], asked_at: float) -> None:
        """Note that deliveries are in flight, and when their leases began.

        It is one step: a renewal between the two would take the leases for renewed.
        """
        if fetched:
            self._in_flight.track(asked_at)
            self._keys.add(fetched, asyncio.get_running_loop().time())

    async def _hand_back(self, others: Sequence[Delivery], kept: Sequence[Delivery], asked_at: float) -> None:
        """Hand back `others`, so that they come again, in order; if that fails, from a new subscription."""
        if not others:
            return
        try:
            await self._handle.settle([(delivery, RELEASED) for delivery in others])
        except Exception:
            self._keep(kept, asked_at)  # `close` hands them back
            self._in_flight.break_order()
            raise

    def _first_group(self, fetched: Sequence[Delivery]) -> Sequence[Delivery]:
        """Return the first deliveries that may run together: of each ordering key one."""
        if runs_alone(fetched[0], self._delivery_limit):
            return fetched[:1]
        keys = set[Hashable]()
        for number, delivery in enumerate(fetched):
            key = self._keys.key_of(delivery.message)
            if key in keys or runs_alone(delivery, self._delivery_limit):
                return fetched[:number]
            keys.add(key)
        return fetched
