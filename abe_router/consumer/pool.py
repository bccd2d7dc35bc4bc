"""The worker pool of a consumer: at most `concurrency` slots that take deliveries from the buffer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from types import FrameType

from abe_router.backend import ACKED, Delivery
from abe_router.consumer.attempt import Attempts
from abe_router.consumer.disposition import HANDLED, Disposition
from abe_router.consumer.fork import calls_handlers
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.consumer.settler import Settler
from abe_router.consumer.shutdown import Shutdown
from abe_router.consumer.slot import Slot
from abe_router.consumer.suspects import runs_alone
from abe_router.observe import log_context
from abe_router.observe.tally import RouteTally
from abe_router.routing.policies import Batch
from abe_router.routing.route import Route

#: How long a handler gets to end once it is cancelled for good, in seconds.
_CANCEL_GRACE = 1.0
#: An event loop whose clock differs by less than this from the monotonic clock, in seconds, uses that clock.
_ROUNDING = 0.1


class WorkerPool:
    """Runs the handlers of a route, each in a slot; a slot is made when it is first needed.

    A slot starts nothing whose lease may have run out: it renews the leases first. It starts nothing while
    `max_unacked` outcomes are not settled, so that a death of the process repeats a bounded number. It
    reports capacity to the fetcher when the buffer is down to its low-water mark.

    Slots are not among the tasks of a TaskGroup, which would wait without limit for a handler that swallows
    its cancellation. A slot that fails by a fault of this package stops the consumer with that error.
    """

    def __init__(
        self,
        route: Route,
        attempts: Attempts,
        in_flight: InFlight,
        lease_keeper: LeaseKeeper,
        settler: Settler,
        shutdown: Shutdown,
        tally: RouteTally,
    ) -> None:
        self._route, self._attempts, self._in_flight = route, attempts, in_flight
        self._tally, self._clock = tally, _precise_clock()
        tally.clock = self._clock
        self._lease_keeper, self._settler, self._shutdown = lease_keeper, settler, shutdown
        self._slots = in_flight.slots
        self._idle: list[asyncio.Future[None]] = []
        self._waking = self._stopping = self._waits_settled = False
        self._gathering = asyncio.Lock()
        self._added = asyncio.Event()
        # When the first of what was added last was started, and when the buffer was empty; 0 before.
        self._first_at = self._emptied_at = 0.0

    @property
    def handling_time(self) -> float | None:
        """How long the handlers have worked on what was added last, in seconds; None if that is not known.

        It does not contain the wait of the first one for the event loop.
        """
        return (self._emptied_at or self._clock()) - self._first_at if self._first_at else None

    async def run(self) -> None:
        """Cancel each handler whose time is up, until cancelled."""
        in_flight, loop = self._in_flight, asyncio.get_running_loop()
        interval = max(0.01, min(self._route.timeout / 10, 1.0))
        while True:
            if not len(in_flight):
                in_flight.busy.clear()
                await in_flight.busy.wait()
            await asyncio.sleep(interval)
            self._expire(loop.time())

    def add(self, deliveries: Sequence[Delivery], *, first: bool = False) -> None:
        """Buffer deliveries, behind the others or before them, and start as many as there are free slots."""
        if first:
            self._in_flight.buffer.extendleft(reversed(deliveries))
        else:
            self._in_flight.buffer.extend(deliveries)
        self._first_at = self._emptied_at = 0.0
        self._added.set()
        self._wake_next()

    def hand_back(self, deliveries: Collection[Delivery]) -> None:
        """Hand back deliveries that were not buffered."""
        self._settler.release(deliveries)

    def stop(self) -> int:
        """Start nothing more, and hand back what was not started; return how many deliveries that were."""
        self._stopping = True
        self._added.set()
        self._in_flight.settled.set()
        while self._idle:
            _wake(self._idle.pop())
        return self._settler.release(self._in_flight.take_unstarted())

    async def drain(self) -> int:
        """Wait for the running handlers, and end them when no time is left.

        Return how many deliveries were handed back although their handlers had not ended.
        """
        running = {slot.task for slot in self._slots if slot.task and not slot.task.done()}
        while running and (seconds := self._shutdown.seconds_left) > 0:
            # In short waits, because a later request may shorten the time.
            _, running = await asyncio.wait(running, timeout=min(seconds, 0.1))
        abandoned = self._cancel()
        try:
            if running:
                await asyncio.wait(running, timeout=_CANCEL_GRACE)
        finally:
            self._settler.release(abandoned)
        return len(abandoned)

    def abandon(self) -> int:
        """End every handler at once; hand back their deliveries, and return how many these are."""
        return self._settler.release(self._cancel())

    def _expire(self, now: float) -> None:
        for slot in self._slots:
            slot.expire(now)

    def _cancel(self) -> list[Delivery]:
        return [delivery for slot in self._slots for delivery in slot.cancel()]

    async def _run_slot(self, slot: Slot) -> None:
        log_context.route.set(self._route.name)
        try:
            if self._route.batch is None:
                await self._work(slot)
            else:
                await self._work_in_batches(slot, self._route.batch)
        except asyncio.CancelledError:
            if not slot.cancelled:
                # The handler left something behind that cancelled the task it had run in.
                self._replace(slot)
            raise
        except Exception as error:  # noqa: BLE001  a fault of ours: it ends the consumer, which then says so
            self._shutdown.fail(error)

    @calls_handlers(continues=True)
    async def _work(self, slot: Slot) -> None:
        in_flight, buffer, leases = self._in_flight, self._in_flight.buffer, self._in_flight.leases
        attempts, settle, clock = self._attempts, self._settler.add, self._clock
        start, is_brief = attempts.start, attempts.is_brief
        report_capacity, outcomes = in_flight.capacity.set, in_flight.outcomes
        record_wait, record_call = self._tally.record_wait, self._tally.record_call
        is_cancelling = slot.is_cancelling
        while True:
            self._waking = False
            now = clock()
            if not self._first_at:
                self._first_at = now
            while buffer:
                if now > leases.overdue_at:
                    await self._lease_keeper.renew()
                    now = clock()
                    continue
                if len(outcomes) >= in_flight.most_outcomes:
                    if self._waits_settled:
                        break  # the slot that waits wakes this one when it takes a delivery
                    await self._wait_settled()
                    now = clock()
                    continue
                delivery = buffer.popleft()
                if buffer and not self._waking:
                    self._wake_next()
                if delivery.deliveries == 1:
                    record_wait(now - delivery.message.published_at)
                call, began_at = start(slot, delivery, now), now
                if isinstance(call, Disposition):
                    disposition, now = call, clock()
                else:
                    try:
                        answer = await call
                    except BaseException as error:  # noqa: BLE001  SystemExit too: a handler must not end the router
                        disposition = attempts.fail(slot, delivery, error)
                    else:
                        disposition = HANDLED if is_brief else attempts.finish(delivery, answer, began_at)
                    finally:
                        slot.deliveries = ()
                        if is_cancelling():
                            slot.end()
                    now = clock()
                    record_call(now - began_at)
                if disposition is HANDLED and outcomes:  # as `settle` does, in half the time
                    outcomes.append((delivery, ACKED))
                else:
                    settle(delivery, disposition)
                if len(buffer) <= in_flight.low_water:
                    report_capacity()
            if not self._emptied_at:
                self._emptied_at = now
            if self._stopping:
                return
            await self._wait_idle()

    async def _work_in_batches(self, slot: Slot, batch: Batch) -> None:
        buffer, clock, tally = self._in_flight.buffer, self._clock, self._tally
        while not self._stopping:
            self._waking = False
            # One slot gathers at a time: several would share what comes into batches half as large.
            async with self._gathering:
                deliveries = await self._gather(batch)
            if not deliveries:
                continue
            self._wake_next()
            began_at = clock()
            for delivery in deliveries:
                if delivery.deliveries == 1:
                    tally.record_wait(began_at - delivery.message.published_at)
            try:
                dispositions = await self._attempts.run_batch(slot, deliveries, began_at)
            except GeneratorExit as error:  # what the handler awaits was thrown it, which closed `run_batch`
                dispositions = [self._attempts.fail(slot, delivery, error) for delivery in deliveries]
            if any(disposition.called for disposition in dispositions):
                tally.record_call(clock() - began_at)
            for delivery, disposition in zip(deliveries, dispositions, strict=True):
                self._settler.add(delivery, disposition)
            if len(buffer) <= self._in_flight.low_water:
                self._in_flight.capacity.set()

    async def _gather(self, batch: Batch) -> Sequence[Delivery]:
        """Return a full batch, or what there is once the first delivery has waited long enough.

        A suspect that runs alone is a batch of its own.
        """
        buffer, loop = self._in_flight.buffer, asyncio.get_running_loop()
        alone = partial(runs_alone, limit=self._route.delivery_limit)
        while not buffer and not self._stopping:
            await self._wait_added(None)
        until = loop.time() + batch.wait
        while len(buffer) < batch.size and not self._stopping and (left := until - loop.time()) > 0:
            if any(map(alone, buffer)):
                break
            await self._wait_added(left)
        while buffer and len(self._in_flight.outcomes) >= self._in_flight.most_outcomes:
            await self._wait_settled()
        while buffer and loop.time() > self._in_flight.leases.overdue_at:
            await self._lease_keeper.renew()
        deliveries: list[Delivery] = []
        while buffer and len(deliveries) < batch.size and not (deliveries and alone(buffer[0])):
            deliveries.append(buffer.popleft())
            if alone(deliveries[-1]):
                break
        return deliveries

    async def _wait_added(self, seconds: float | None) -> None:
        self._added.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._added.wait()
        except TimeoutError:
            return

    async def _wait_settled(self) -> None:
        """Wait until some outcomes are settled, or until the buffer is emptied by a stop."""
        self._waits_settled = True
        try:
            self._in_flight.settled.clear()
            await self._in_flight.settled.wait()
        finally:
            self._waits_settled = False

    def _wait_idle(self) -> Awaitable[None]:
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(idle)
        return idle

    def _wake_next(self) -> None:
        """Wake an idle slot, or make one. When it begins, and the buffer is not empty, it wakes the next.

        So handlers that never wait need one slot, however many deliveries come.
        """
        if self._waking:
            return
        while self._idle and self._idle[-1].done():  # its slot was cancelled
            self._idle.pop()
        if self._idle:
            self._waking = True
            _wake(self._idle.pop())
        elif len(self._slots) < self._route.concurrency:
            self._waking = True
            slot = Slot()
            self._slots.append(slot)
            slot.task = asyncio.create_task(self._run_slot(slot))

    def _replace(self, slot: Slot) -> None:
        self._slots.remove(slot)
        self._waking = False
        if self._in_flight.buffer:
            self._wake_next()
        self._in_flight.capacity.set()


def _precise_clock() -> Callable[[], float]:
    """Return the clock of the running loop; the monotonic clock if the loop only rounds that, as uvloop does.

    The monotonic clock of Python takes less time too.
    """
    clock = asyncio.get_running_loop().time
    return time.monotonic if abs(clock() - time.monotonic()) < _ROUNDING else clock


def route_called_in(frame: FrameType) -> Route | None:
    """Return the route whose handler is called in a frame, if it is one that calls handlers."""
    if frame.f_code not in _CALLS:
        return None
    route: Route = frame.f_locals["self"]._route  # noqa: SLF001  of both classes
    return route


#: The code of the methods that call handlers in the event loop.
_CALLS = frozenset(method.__code__ for method in (WorkerPool._work, Attempts.run_batch))  # noqa: SLF001


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
