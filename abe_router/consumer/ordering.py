"""The messages of a subscription with the order of `order_by` kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
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
from abe_router.consumer.lanes import Lanes
from abe_router.consumer.lease_keeper import Leases
from abe_router.consumer.prefetch import MAX_FETCH
from abe_router.errors import BackendError
from abe_router.observe.events import Events
from abe_router.routing.route import Route

#: Most deliveries in hand, those included that wait for others of their lane.
WINDOW = 1000
#: How long one fetch of the handle waits for a message, in seconds.
#: Wait after a fetch on a closed handle, in seconds.
_CLOSED_PAUSE = 0.1
_FETCH_WAIT = 5.0

Reopen = Callable[[], Awaitable[ExclusiveSubscription]]


class OrderedSubscription(Subscription):
    """An exclusive handle, of which it hands out what is next in its lane and no more.

    The others it keeps, with their leases, up to the window; so a lane that is held up holds up no other
    before the window is full of it. When a lease is lost, or an outcome refused, nobody can tell what
    became of the rest: `doubt` is called, nothing is handed out any more, and once all that was has been
    settled or forgotten, the handle is closed and `reopen` makes another, which begins with all that is
    unsettled.
    """

    def __init__(
        self,
        route: Route,
        handle: ExclusiveSubscription,
        reopen: Reopen,
        events: Events,
        *,
        doubt: Callable[[], None],
    ) -> None:
        self.pattern, self.group = route.key, route.group
        self._route, self._reopen, self._events, self._doubt = route, reopen, events, doubt
        self._lost = self._interrupted = self._closed = False
        self._most = 1
        self._settling: set[Delivery] = set()
        self._begin(handle)
        self._error: Exception | None = None
        self._filling: asyncio.Future[None] | None = None
        self._keeping: asyncio.Future[None] | None = None
        self._news, self._wanted, self._holds = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def leased_at(self) -> float:
        """The loop's time before which no lease of what was handed out last began."""
        return self._leases.began_at

    @property
    def kept(self) -> int:
        """How many deliveries are in hand and not handed out."""
        return len(self._lanes) - len(self._lanes.taken)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries whose turn it is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        if self._filling is None:
            self._filling = asyncio.create_task(self._fill())
            self._keeping = asyncio.create_task(self._keep())
            self._keeping.add_done_callback(self._failed)
        self._wanted.set()
        while not self._closed:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            now = loop.time()
            taken = [] if self._lost else self._lanes.take(limit, now)
            if taken or self._interrupted or now >= deadline:
                self._interrupted = False
                return taken
            self._news.clear()
            await wait_for_event(self._news, min(deadline, self._lanes.next_due) - now)
        return []

    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once."""
        self._interrupted = True
        self._news.set()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, and let the next of each lane go; return what was refused."""
        # After an error some of them may have ended: those have left the lanes.
        held = [each for each in settlements if each[0] in self._lanes.taken]
        self._settling = {delivery for delivery, _ in held}
        try:
            return await self._settle(held)
        finally:
            self._settling.clear()

    async def _settle(self, held: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        lanes, refused = self._lanes, list[Delivery]()
        ended = [each for each in held if not isinstance(each[1], Delayed | Released)]
        failed = [(delivery, outcome.seconds) for delivery, outcome in held if isinstance(outcome, Delayed)]
        if ended:
            refused += await self._handle.settle(ended)
            for delivery, _ in ended:
                lanes.end(delivery)
        if failed:
            asked = asyncio.get_running_loop().time()
            retries = await self._handle.postpone(failed)
            now = asyncio.get_running_loop().time()
            self._hold(asked)
            for (delivery, _), retry in zip(failed, retries, strict=True):
                if retry is None:
                    refused.append(delivery)
                    lanes.end(delivery)
                else:
                    lanes.again(delivery, retry, now)
        for delivery, outcome in held:
            if isinstance(outcome, Released):
                lanes.give_back(delivery)
        if refused:
            self._lose()
        self._most += len(held)
        self._news.set()
        self._wanted.set()
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the leases anew; return all when one was lost."""
        if not self._lost:
            self._check(await self._handle.extend(deliveries))
        return deliveries if self._lost else ()

    def forget(self, deliveries: Collection[Delivery]) -> None:
        """Note that these were lost, and will not be settled."""
        for delivery in self._lanes.taken.intersection(deliveries):
            self._lanes.end(delivery)
        self._lose()
        self._wanted.set()

    async def close(self) -> None:
        """Hand back all that is kept, and then let go of the place."""
        self._closed = True
        self.interrupt()
        # A fetch is not cancelled: what it brings is to be handed back before the place is another's.
        self._handle.interrupt()
        self._wanted.set()
        if self._keeping is not None:
            self._keeping.cancel()
        if self._filling is not None:
            await asyncio.wait({self._filling})
        await self._let_go()

    async def _fill(self) -> None:
        """Fetch as long as there is room."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            room = min(self._most - self._lanes.active, WINDOW - len(self._lanes), MAX_FETCH)
            if self._error is not None or (self._lanes.taken if self._lost else room < 1):
                self._wanted.clear()
                await self._wanted.wait()
                continue
            asked = loop.time()
            try:
                if self._lost:
                    await self._begin_anew()
                    continue
                fetched = await self._handle.fetch(room, _FETCH_WAIT)
            except Exception as error:  # noqa: BLE001  it is raised by the fetch that waits, or the next one
                self._error = error
                self._news.set()
                continue
            if fetched:
                self._take_in(fetched, asked)
            elif not (self._closed or self._lost) and loop.time() - asked < _CLOSED_PAUSE:
                await asyncio.sleep(_CLOSED_PAUSE)  # the handle was closed, and does not wait any more

    def _take_in(self, fetched: Sequence[Delivery], asked: float) -> None:
        self._hold(asked)
        self._lanes.add(fetched, asyncio.get_running_loop().time())
        # What was in hand when a process ended may have ended it. Then few more are taken until some are
        # done, twice as many each time, lest all behind it are counted as handed out with it.
        if all(each.deliveries <= each.message.attempt for each in fetched):
            self._most = max(self._most, WINDOW)
        self._news.set()

    async def _keep(self) -> None:
        """Keep the leases of what is not handed out."""
        loop = asyncio.get_running_loop()
        while True:
            if not self.kept:
                self._holds.clear()
                await self._holds.wait()
            await asyncio.sleep(max(0.01, min(self._route.lease / 6, 1.0)))
            if self.kept and not self._lost and self._leases.due(loop.time()):
                await self._leases.renew()

    def _failed(self, keeping: asyncio.Future[None]) -> None:
        error = None if keeping.cancelled() else keeping.exception()
        if isinstance(error, Exception):
            self._error = error
            self._news.set()

    def _hold(self, asked: float) -> None:
        """Note that there is more to keep, leased at `asked` or later."""
        if not self.kept:
            self._leases.forget()
        self._leases.took(asked)
        self._holds.set()

    def _drop(self, refused: set[Delivery]) -> Sequence[Delivery]:
        self._check(refused)
        return ()

    def _check(self, refused: Collection[Delivery]) -> None:
        """Lose everything if one of those whose lease was not renewed is still in hand.

        What is being settled may have left before, and if it was lost, that will be said of it.
        """
        if any(delivery in self._lanes and delivery not in self._settling for delivery in refused):
            self._lose()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._handle.interrupt()
            self._wanted.set()
            self._doubt()

    async def _begin_anew(self) -> None:
        await self._let_go()
        await asyncio.sleep(_CLOSED_PAUSE)
        self._begin(await self._reopen())

    def _begin(self, handle: ExclusiveSubscription) -> None:
        assert self._route.order_by is not None
        self._handle, self._lanes = handle, Lanes(self._route.order_by)
        self._leases = Leases(self._route, handle, self._events, held=self._lanes.kept, drop=self._drop)
        self._most, self._lost = 1, False

    async def _let_go(self) -> None:
        with suppress(BackendError):
            await self._handle.settle([(delivery, RELEASED) for delivery in self._lanes.kept()])
        with suppress(BackendError):
            await self._handle.close()
