"""The loop of one route: fetch, try, settle, keep the leases.

Fetching runs ahead of the handlers only as far as they can keep up, settles are carried out in batches as
large as piled up during the one before, and one watchdog serves all timeouts and leases of the route.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import TypeVar

from abe_router.attempt import Attempts, Verdict, Worker
from abe_router.backend import RELEASED, Backend, Delivery, Features, Subscription
from abe_router.errors import BackendError
from abe_router.event import BackendBack, BackendLost, ConsumerStarted, ConsumerStopped, Events, LeaseLost
from abe_router.route import Route

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: How long one fetch waits for a message, in seconds; a stop interrupts it.
FETCH_WAIT = 5.0
#: Most deliveries asked for at once.
MAX_FETCH = 500
#: Deliveries held ahead of the handlers are doubled while they last less than the first, halved when they
#: last longer than the second, in seconds.
KEEPS_UP, FALLS_BEHIND = 0.05, 0.2
#: Wait after a backend error, in seconds: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: How long a stopping consumer tries to settle what is done while the backend cannot be reached, in seconds.
LAST_WORDS = 5.0


class Consumer:
    """Runs one route until it is stopped.

    `run` is called once. `table` is the hash of the route table; `threads` runs sync handlers.
    """

    def __init__(
        self, route: Route, backend: Backend, events: Events, *, table: str, threads: Executor
    ) -> None:
        self.route = route
        self._backend, self._events = backend, events
        self._attempts = Attempts(
            _feasible(route, backend.features),
            table=table,
            threads=threads,
            tell_handled=events.wants_handled,
        )
        self._subscription: Subscription | None = None
        self._hand: deque[Delivery] = deque()  # fetched, not yet started
        self._workers: list[Worker] = []
        self._parked: list[asyncio.Future[None]] = []
        self._settled: list[tuple[Delivery, Verdict]] = []  # decided, not yet settled
        self._settling: Sequence[tuple[Delivery, Verdict]] = ()  # on its way to the backend
        self._stop = asyncio.Event()
        self._drain = route.drain
        self._wants_fetch, self._wants_settle, self._busy = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._workers_done = False
        self._beat_at = 0.0
        self._ahead = 0
        self._connected = True
        #: Set once it has its subscription, or has seen that the backend cannot be reached, or has ended.
        self.started = asyncio.Event()
        #: How many handlers were still running when the drain time was over.
        self.abandoned = 0

    @property
    def in_hand(self) -> int:
        """How many deliveries it holds: waiting, running, or not yet settled."""
        running = sum(worker.delivery is not None for worker in self._workers)
        return len(self._hand) + running + len(self._settled) + len(self._settling)

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
        try:
            subscription = await self._subscribe()
        finally:
            self.started.set()
        if subscription is None:
            return
        self._subscription = subscription
        self._events.emit(ConsumerStarted(self.route.name, self.route.handler.path))
        try:
            if self.route.paused:
                await self._stop.wait()
            else:
                await self._consume(subscription)
        finally:
            try:
                await subscription.close()
            except BackendError as error:
                _log.debug("closing the subscription of %s: %s", self.route.name, error)

    async def _consume(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        settling = asyncio.create_task(self._settle_all(subscription))
        watching = asyncio.create_task(self._watch(subscription))
        fetching = asyncio.create_task(self._fetch_all(subscription))
        stopping = asyncio.create_task(self._stop.wait())
        began, released = loop.time(), 0
        try:
            await asyncio.wait({fetching, settling, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            began = loop.time()
            # Never cancel a fetch under way: what it has fetched would be stranded until its lease ends.
            self.stop()
            await fetching
            released = self._release_hand()
            self.abandoned = await self._finish_running(began)
        finally:
            for worker in self._workers:
                if worker.task is not None:
                    worker.task.cancel()
            self._workers_done = True
            self._wants_settle.set()
            fetching.cancel()
            stopping.cancel()
            await asyncio.wait({settling}, timeout=LAST_WORDS + 1)
            watching.cancel()
            settling.cancel()
            ended = await asyncio.gather(fetching, settling, watching, stopping, return_exceptions=True)
            self._events.emit(ConsumerStopped(self.route.name, released, self.abandoned, loop.time() - began))
        for result in ended:
            if isinstance(result, Exception):
                raise result

    def _release_hand(self) -> int:
        released = len(self._hand)
        self._settled.extend((delivery, Verdict(RELEASED)) for delivery in self._hand)
        self._hand.clear()
        return released

    async def _finish_running(self, began: float) -> int:
        """Wait for the running handlers, as long as the drain time allows; return how many did not end."""
        loop = asyncio.get_running_loop()
        while self._parked:
            _wake(self._parked.pop())
        running = {worker.task for worker in self._workers if worker.task and not worker.task.done()}
        while running and (left := began + self._drain - loop.time()) > 0:
            # In short waits, for a second call of stop() may have shortened the time.
            _, running = await asyncio.wait(running, timeout=min(left, 0.1))
        abandoned = [worker for worker in self._workers if worker.delivery is not None]
        self._settled.extend((w.delivery, Verdict(RELEASED)) for w in abandoned if w.delivery is not None)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=1.0)
        return len(abandoned)

    async def _subscribe(self) -> Subscription | None:
        """Return a handle, trying until there is one; None when stopped before."""
        route = self.route
        return await self._persist(
            lambda: self._backend.subscribe(route.key, route.group, start=route.start, lease=route.lease)
        )

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `call` returns, trying again after backend errors until stopped; None then."""
        pause, lost_at = FIRST_PAUSE, 0.0
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            try:
                result = await call()
            except BackendError as error:
                lost_at = lost_at or loop.time()
                self._connected = False
                self.started.set()
                delay = pause * random.uniform(0.5, 1.0)  # noqa: S311
                self._events.emit(BackendLost(self.route.name, str(error), delay))
                pause = min(LONGEST_PAUSE, pause * 2)
                await _wait(self._stop, delay)
                continue
            if not self._connected:
                self._connected = True
                self._events.emit(BackendBack(self.route.name, loop.time() - lost_at))
            return result
        return None

    async def _fetch_all(self, subscription: Subscription) -> None:
        loop = asyncio.get_running_loop()
        full_at = 0.0  # when a full batch came in, 0 when the last one was not full
        while not self._stop.is_set():
            room = self.route.concurrency + self._ahead - len(self._hand) - self._running()
            if room < max(1, self._ahead // 2):
                self._wants_fetch.clear()
                await self._wants_fetch.wait()
                continue
            asked_at = loop.time()
            if full_at and self._backend.features.leases:  # without them a crash loses what is ahead
                lasted = asked_at - full_at
                if lasted < KEEPS_UP:
                    self._ahead = min(2 * MAX_FETCH, max(8, self._ahead * 2))
                elif lasted > FALLS_BEHIND:
                    self._ahead //= 2
            limit = min(room, MAX_FETCH)
            deliveries = await self._persist(partial(subscription.fetch, limit, FETCH_WAIT))
            if not deliveries:
                full_at = 0.0
                continue
            now = loop.time()
            full_at = now if len(deliveries) == limit else 0.0
            if not self._busy.is_set():
                self._beat_at = now
                self._busy.set()
            self._hand.extend(deliveries)
            self._start_workers(len(deliveries))

    def _running(self) -> int:
        return sum(worker.delivery is not None for worker in self._workers)

    def _start_workers(self, wanted: int) -> None:
        """Wake parked workers, and add some up to the route's concurrency, for `wanted` deliveries."""
        while wanted > 0 and self._parked:
            _wake(self._parked.pop())
            wanted -= 1
        for _ in range(min(wanted, self.route.concurrency - len(self._workers))):
            worker = Worker()
            self._workers.append(worker)
            worker.task = asyncio.create_task(self._work(worker))

    async def _work(self, worker: Worker) -> None:
        hand, attempt = self._hand, self._attempts.run
        loop = asyncio.get_running_loop()
        overdue = self.route.lease * 2 / 3
        while True:
            while hand:
                now = loop.time()
                if now - self._beat_at > overdue and self._subscription is not None:
                    # The process stood still, or the loop was blocked: make sure that what waits is ours.
                    await self._beat(self._subscription)
                    continue
                delivery = hand.popleft()
                verdict = await attempt(worker, delivery, now)
                self._settled.append((delivery, verdict))
                if not self._wants_settle.is_set():
                    self._wants_settle.set()
                if len(hand) <= self._ahead // 2 and not self._wants_fetch.is_set():
                    self._wants_fetch.set()
            if self._stop.is_set():
                return
            parked: asyncio.Future[None] = loop.create_future()
            self._parked.append(parked)
            await parked

    async def _settle_all(self, subscription: Subscription) -> None:
        while not (self._workers_done and not self._settled):
            await self._wants_settle.wait()
            self._wants_settle.clear()
            while self._settled:
                self._settling, self._settled = self._settled, []
                await self._settle(subscription, self._settling)
                self._settling = ()
            if self._workers_done:
                self._wants_settle.set()

    async def _settle(self, subscription: Subscription, batch: Sequence[tuple[Delivery, Verdict]]) -> None:
        """Settle the batch, trying again after backend errors as long as the leases can last."""
        loop = asyncio.get_running_loop()
        pause, began = FIRST_PAUSE, loop.time()
        settlements = [(delivery, verdict.outcome) for delivery, verdict in batch]
        while True:
            try:
                refused = await subscription.settle(settlements)
                break
            except BackendError as error:
                patience = LAST_WORDS if self._workers_done else self.route.lease
                if loop.time() - began > patience:
                    _log.error("%s: %d settlements given up: %s", self.route.name, len(batch), error)
                    refused = [delivery for delivery, _ in batch]
                    break
                self._connected = False
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(LONGEST_PAUSE, pause * 2)
        lost = set(refused)
        for delivery, verdict in batch:
            if lost and delivery in lost:
                message = delivery.message
                self._events.emit(LeaseLost(self.route.name, message.id, message.key))
            elif verdict.event is not None:
                self._events.emit(verdict.event)

    async def _watch(self, subscription: Subscription) -> None:
        """End handlers whose time is up and keep the leases, as long as there is anything in hand."""
        route, loop = self.route, asyncio.get_running_loop()
        tick = max(0.01, min(route.lease / 6, route.timeout / 10, 1.0))
        while True:
            if not self.in_hand:
                self._busy.clear()
                await self._busy.wait()
            await asyncio.sleep(tick)
            now = loop.time()
            for worker in self._workers:
                worker.expire(now)
            if now - self._beat_at >= route.lease / 3:
                await self._beat(subscription)

    async def _beat(self, subscription: Subscription) -> None:
        """Extend the lease of all that is in hand; put away what was lost before it was started."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        held = [*self._hand, *(w.delivery for w in self._workers if w.delivery is not None)]
        held += [delivery for delivery, _ in (*self._settled, *self._settling)]
        try:
            lost = set(await subscription.extend(held)) if held else set()
        except BackendError as error:
            _log.warning("%s: leases not extended: %s", self.route.name, error)
            await asyncio.sleep(FIRST_PAUSE)
            return
        self._beat_at = began
        gone = [delivery for delivery in self._hand if delivery in lost]
        for delivery in gone:
            self._hand.remove(delivery)
            self._events.emit(LeaseLost(self.route.name, delivery.message.id, delivery.message.key))


def _feasible(route: Route, features: Features) -> Route:
    """Return the route with no policies but those that its backend can carry out."""
    if not features.delays:
        route = replace(route, retry=replace(route.retry, attempts=1))
    if not features.dead_letters:
        route = replace(route, dead_letter=False)
    return route


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set, at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
