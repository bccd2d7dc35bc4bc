"""The handles on a queue of the memory backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from abe_router.backend import Acked, Delivery, ExclusiveSubscription, Outcome, Subscription
from abe_router.backends.memory.queue import QueueEntry, SubscriptionQueue, wake
from abe_router.errors import SubscriptionClosed
from abe_router.messages.message import Message


class MemorySubscription(Subscription):
    """A handle on a queue; it is open as long as it is among `handles`.

    When the subscription is dropped, the next fetch makes it again, with the same `start`.
    """

    def __init__(
        self,
        pattern: str,
        group: str,
        queue: SubscriptionQueue,
        lease: float,
        handles: set[MemorySubscription],
        emit: Callable[[Sequence[Message], float], None],
        start: float = 0.0,
    ) -> None:
        self.pattern, self.group = pattern, group
        self._queue, self._lease, self._handles, self._emit = queue, lease, handles, emit
        self._start, self._interrupted = start, False
        self._waiter: asyncio.Future[None] | None = None
        handles.add(self)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        # A consumer whose fetch always finds something would otherwise never yield to the event loop.
        await asyncio.sleep(0)
        while self in self._handles:
            queue = self._current_queue()
            taken, look_again = self._take(queue, limit)
            left = deadline - loop.time()
            if taken or self._interrupted or left <= 0:
                self._interrupted = False
                return taken
            self._waiter = loop.create_future()
            await queue.wait(self._waiter, min(left, look_again))
        raise SubscriptionClosed(f"the handle on `{self.name}` is closed")

    def interrupt(self) -> None:
        self._interrupted = True
        if self._waiter:
            wake(self._waiter)

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        refused = []
        for delivery, outcome in settlements:
            if entry := self._held(delivery):
                self._queue.settle(entry, outcome)
                if isinstance(outcome, Acked) and outcome.outputs:
                    self._emit(outcome.outputs, outcome.window)
            else:
                refused.append(delivery)
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        refused = []
        for delivery in deliveries:
            if entry := self._held(delivery):
                self._queue.renew(entry, self._lease)
            else:
                refused.append(delivery)
        return refused

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        held = [entry for delivery in deliveries if (entry := self._held(delivery))]
        self._queue.prolong(held, self, self._lease)

    async def close(self) -> None:
        self._handles.discard(self)
        self.interrupt()

    def _take(self, queue: SubscriptionQueue, limit: int) -> tuple[list[Delivery], float]:
        """Return deliveries, and after how many seconds to look again if there are none."""
        return queue.take(limit, self, self._lease), float("inf")

    def _current_queue(self) -> SubscriptionQueue:
        """Return the queue; make it again if the subscription was dropped."""
        if self._queue.make_again:
            self._queue = self._queue.make_again(self._start)
        return self._queue

    def _held(self, delivery: Delivery) -> QueueEntry | None:
        """Return the entry, unless it was settled or handed out again since, or belongs to another handle."""
        entry: QueueEntry
        entry, claim = delivery.receipt
        return entry if entry.claim == claim and entry.holder is self else None


class ExclusiveMemorySubscription(MemorySubscription, ExclusiveSubscription):
    """A handle that acquires the ownership of the queue when it fetches and the queue has no owner."""

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        return [
            self._queue.postpone(delivery, seconds, self._lease) if self._held(delivery) else None
            for delivery, seconds in failed
        ]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if self._queue.owner[0] is self:
            self._queue.acquire(self, self._lease)
        return await super().extend(deliveries)

    async def close(self) -> None:
        self._queue.release(self)
        await super().close()

    def _take(self, queue: SubscriptionQueue, limit: int) -> tuple[list[Delivery], float]:
        if retry_after := queue.acquire(self, self._lease):
            return [], retry_after
        return queue.take_in_order(limit, self, self._lease), self._lease / 3
