"""The workers of a consumer, and what they have in hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from abe_router.backend import Delivery
from abe_router.consumer.attempt import Attempts
from abe_router.consumer.lease_keeper import Leases
from abe_router.consumer.prefetch import Lookahead
from abe_router.consumer.settler import Settler
from abe_router.consumer.slot import Worker
from abe_router.routing.route import Route


class Crew:
    """At most `concurrency` workers, made when first needed, that take deliveries from one hand.

    Before one is started `leases` sees to it that it is still ours. `hungry` is called when a worker is
    done and the hand is as low as `ahead` says.
    """

    def __init__(
        self,
        route: Route,
        attempts: Attempts,
        settler: Settler,
        leases: Leases,
        ahead: Lookahead,
        hungry: Callable[[], None],
    ) -> None:
        self._route, self._attempts, self._settler, self._leases = route, attempts, settler, leases
        self._ahead, self._hungry = ahead, hungry
        self._hand: deque[Delivery] = deque()
        self._workers: list[Worker] = []
        self._parked: list[asyncio.Future[None]] = []
        self._waking = False
        self._gathering = asyncio.Lock()
        self._more = asyncio.Event()
        self._stopping = False
        #: Ends, with the error, when a worker fails by a fault that is not its handler's.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def waiting(self) -> int:
        """How many deliveries are not yet started."""
        return len(self._hand)

    @property
    def running(self) -> int:
        """How many deliveries are being handled."""
        return sum(len(worker.deliveries) for worker in self._workers)

    def held(self) -> list[Delivery]:
        """Return the deliveries that wait or are being handled."""
        return [*self._hand, *(d for worker in self._workers for d in worker.deliveries)]

    def drop(self, lost: set[Delivery]) -> Sequence[Delivery]:
        """Put away what is lost and not yet started, and return it."""
        gone = [delivery for delivery in self._hand if delivery in lost]
        for delivery in gone:
            self._hand.remove(delivery)
        return gone

    def expire(self, now: float) -> None:
        """End the handlers whose time is up."""
        for worker in self._workers:
            worker.expire(now)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Hand over deliveries."""
        self._hand.extend(deliveries)
        self._more.set()
        self._wake_next()

    def stop(self) -> Sequence[Delivery]:
        """Start nothing more; return what was not started."""
        self._stopping = True
        self._more.set()
        left = list(self._hand)
        self._hand.clear()
        while self._parked:
            _wake(self._parked.pop())
        return left

    async def finish(self, left: Callable[[], float]) -> Sequence[Delivery]:
        """Wait for the running handlers, and end them when no time, in seconds, is left; return theirs."""
        running = {worker.task for worker in self._workers if worker.task and not worker.task.done()}
        while running and (seconds := left()) > 0:
            # In short waits, for the time that is left may be shortened meanwhile.
            _, running = await asyncio.wait(running, timeout=min(seconds, 0.1))
        abandoned = [delivery for worker in self._workers for delivery in worker.deliveries]
        self.cancel()
        if running:
            await asyncio.wait(running, timeout=1.0)
        return abandoned

    def cancel(self) -> None:
        """End every worker where it is."""
        for worker in self._workers:
            worker.cancel()

    async def _work(self, worker: Worker) -> None:
        hand, leases, ahead = self._hand, self._leases, self._ahead
        attempt, settle, clock = self._attempts.run, self._settler.add, asyncio.get_running_loop().time
        while True:
            self._waking = False
            while hand:
                now = clock()
                if now > leases.overdue_at:
                    await leases.renew()
                    continue
                delivery = hand.popleft()
                if hand:
                    self._wake_next()
                settle(delivery, await attempt(worker, delivery, now))
                if len(hand) <= ahead.low:
                    self._hungry()
            if self._stopping:
                return
            await self._park()

    async def _work_in_batches(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._waking = False
            # One worker gathers at a time: several would share what comes into batches half as large.
            async with self._gathering:
                batch = await self._gather()
            if not batch:
                continue
            self._wake_next()
            verdicts = await self._attempts.run_batch(worker, batch, loop.time())
            for delivery, verdict in zip(batch, verdicts, strict=True):
                self._settler.add(delivery, verdict)
            if len(self._hand) <= self._ahead.low:
                self._hungry()

    async def _gather(self) -> Sequence[Delivery]:
        """Return a full batch, or what there is once the first of it has waited long enough."""
        policy, loop = self._route.batch, asyncio.get_running_loop()
        assert policy is not None
        while not self._hand and not self._stopping:
            await self._until_more(None)
        until = loop.time() + policy.wait
        while len(self._hand) < policy.size and not self._stopping and (left := until - loop.time()) > 0:
            await self._until_more(left)
        while self._hand and loop.time() > self._leases.overdue_at:
            await self._leases.renew()
        return [self._hand.popleft() for _ in range(min(policy.size, len(self._hand)))]

    async def _until_more(self, seconds: float | None) -> None:
        self._more.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            return

    def _ended(self, worker: Worker, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled():
            error = ended.exception()
            if error is not None and not self.broken.done():
                self.broken.set_exception(error)
        elif not worker.cancelled:
            # A handler left something behind that cancelled the task it had run in: another takes its place.
            self._workers.remove(worker)
            self._waking = False
            if self._hand:
                self._wake_next()
            self._hungry()

    def _wake_next(self) -> None:
        """Wake a worker that is parked, or make one; when it begins, and there is more, it wakes the next.

        Handlers that never wait need one worker, whatever the others may be woken for.
        """
        if self._waking:
            return
        while self._parked and self._parked[-1].done():  # its worker was cancelled
            self._parked.pop()
        if self._parked:
            self._waking = True
            _wake(self._parked.pop())
        elif len(self._workers) < self._route.concurrency:
            self._waking = True
            self._make_worker()

    def _make_worker(self) -> None:
        worker = Worker()
        self._workers.append(worker)
        work = self._work(worker) if self._route.batch is None else self._work_in_batches(worker)
        worker.task = asyncio.create_task(work)
        worker.task.add_done_callback(partial(self._ended, worker))

    def _park(self) -> Awaitable[None]:
        parked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parked.append(parked)
        return parked


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
