"""Deliveries of an ordered route, grouped by the value that orders them."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import deque
from collections.abc import Hashable, Sequence
from itertools import count
from math import inf

from abe_router.backend import Delivery
from abe_router.errors import PayloadMalformed
from abe_router.messages.message import Message, decode
from abe_router.messages.pointer import find


class OrderingKeys:
    """Hands out one delivery of each ordering key at a time, and the next once that has ended for good.

    An ordering key is a routing key and the value at `pointer`. A message without a value there, with null,
    or with a body that is not JSON has an ordering key of its own. Times are those of the loop, in seconds.

    A delivery is *ready* or *early* (its attempt is not due yet) when it is the first of its ordering key,
    *behind* when it is not, and *taken* once it is handed out. A taken one stays the first of its key until
    it ends or its retry replaces it.
    """

    def __init__(self, pointer: str) -> None:
        self._pointer = pointer
        #: Set at each change after which there may be more to take.
        self.changed = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        """Forget every delivery; the order counts as kept again."""
        self._queues: dict[Hashable, deque[Delivery]] = {}
        self._keys: dict[Delivery, Hashable] = {}  # of the first of each queue
        self._ready: deque[Delivery] = deque()
        self._due: dict[Delivery, float] = {}
        self._early: list[tuple[float, int, Delivery]] = []  # heap
        self._numbers = count()
        self._size = 0
        #: Those that were handed out and have not ended.
        self.taken: set[Delivery] = set()
        #: Whether the order can no longer be kept, because a delivery was lost.
        self.broken = False

    def __len__(self) -> int:
        """Count all deliveries, taken or not."""
        return self._size

    def __contains__(self, delivery: Delivery) -> bool:
        """Say whether the delivery is here, taken or not."""
        return delivery in self._keys or delivery in self.waiting()

    @property
    def active(self) -> int:
        """How many are taken, or could be taken at once."""
        return len(self.taken) + len(self._ready)

    @property
    def next_due(self) -> float:
        """When the next early one may be taken; infinity when there is none."""
        return self._early[0][0] if self._early else inf

    def waiting(self) -> list[Delivery]:
        """Return those that are not taken."""
        return [each for queue in self._queues.values() for each in queue if each not in self.taken]

    def add(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Append deliveries, which come in the order of the log, to the queues of their ordering keys."""
        self._size += len(deliveries)
        for delivery in deliveries:
            if delivery.wait > 0:
                self._due[delivery] = now + delivery.wait
            key = self.key_of(delivery.message)
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque((delivery,))
                self._come_first(delivery, key)
            else:
                queue.append(delivery)
        self.changed.set()

    def take(self, limit: int, now: float) -> list[Delivery]:
        """Return up to `limit` ready ones; none once the order is broken."""
        if self.broken:
            return []
        ready = self._ready
        while self._early and self._early[0][0] <= now:
            ready.append(heapq.heappop(self._early)[2])
        taken = [ready.popleft() for _ in range(min(limit, len(ready)))]
        self.taken.update(taken)
        return taken

    def give_back(self, delivery: Delivery) -> None:
        """Make a taken one ready again, before all others."""
        self.taken.discard(delivery)
        self._ready.appendleft(delivery)
        self.changed.set()

    def replace(self, delivery: Delivery, retry: Delivery, now: float) -> None:
        """Put the retry of a taken one first in its queue."""
        key = self._remove(delivery)
        self._queues[key][0] = retry
        self._due[retry] = now + retry.wait
        self._come_first(retry, key)

    def end(self, delivery: Delivery) -> None:
        """Remove a taken one; the next of its ordering key comes first."""
        key = self._remove(delivery)
        queue = self._queues[key]
        queue.popleft()
        self._size -= 1
        if queue:
            self._come_first(queue[0], key)
        else:
            del self._queues[key]

    def break_order(self) -> None:
        """Hand out nothing any more."""
        self.broken = True
        self.changed.set()

    def _remove(self, delivery: Delivery) -> Hashable:
        self.taken.discard(delivery)
        self.changed.set()
        return self._keys.pop(delivery)

    def _come_first(self, delivery: Delivery, key: Hashable) -> None:
        self._keys[delivery] = key
        due = self._due.pop(delivery, None)
        if due is None:
            self._ready.append(delivery)
        else:
            heapq.heappush(self._early, (due, next(self._numbers), delivery))

    def key_of(self, message: Message) -> Hashable:
        """Return the ordering key of a message."""
        try:
            value = find(decode(message.body), self._pointer)
        except (PayloadMalformed, LookupError):
            value = None
        if value is None:
            return object()
        if isinstance(value, dict | list):
            value = json.dumps(value, sort_keys=True)
        # Python takes 1 and true, or a list and its text, for one ordering key: strict, but safe.
        return message.key, value
