"""Deliveries of an ordered route, by the value that orders them."""

from __future__ import annotations

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


class Lanes:
    """Lets one delivery of each lane go at a time: the next one once that has ended for good.

    A lane is made of the messages of one key that have the same value at `pointer`. Those that have none
    there, or null, or are not JSON, are alone in theirs. Times are the loop's, in seconds.
    """

    def __init__(self, pointer: str) -> None:
        self._pointer = pointer
        self._lanes: dict[Hashable, deque[Delivery]] = {}
        self._names: dict[Delivery, Hashable] = {}  # of the first of each lane
        self._ready: deque[Delivery] = deque()
        self._due: dict[Delivery, float] = {}
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._numbers = count()
        self._size = 0
        #: Those that were taken and have not ended.
        self.taken: set[Delivery] = set()

    def __len__(self) -> int:
        """Count what is in the lanes, taken or not."""
        return self._size

    def __contains__(self, delivery: Delivery) -> bool:
        """Say whether it is in the lanes, taken or not."""
        return delivery in self._names or delivery in self.kept()

    @property
    def active(self) -> int:
        """How many were taken, or could be at once."""
        return len(self.taken) + len(self._ready)

    @property
    def next_due(self) -> float:
        """When the next one that waits for its time may be taken; infinity when none does."""
        return self._waiting[0][0] if self._waiting else inf

    def kept(self) -> list[Delivery]:
        """Return those that are not taken."""
        return [each for lane in self._lanes.values() for each in lane if each not in self.taken]

    def add(self, deliveries: Sequence[Delivery], now: float) -> None:
        """Put deliveries, in the order of the log, at the ends of their lanes."""
        self._size += len(deliveries)
        for delivery in deliveries:
            if delivery.wait > 0:
                self._due[delivery] = now + delivery.wait
            name = self._name(delivery.message)
            lane = self._lanes.get(name)
            if lane is None:
                self._lanes[name] = deque((delivery,))
                self._come_first(delivery, name)
            else:
                lane.append(delivery)

    def take(self, limit: int, now: float) -> list[Delivery]:
        """Return up to so many whose turn and time have come."""
        ready = self._ready
        while self._waiting and self._waiting[0][0] <= now:
            ready.append(heapq.heappop(self._waiting)[2])
        taken = [ready.popleft() for _ in range(min(limit, len(ready)))]
        self.taken.update(taken)
        return taken

    def give_back(self, delivery: Delivery) -> None:
        """Have a taken one be the next to be taken."""
        self.taken.discard(delivery)
        self._ready.appendleft(delivery)

    def again(self, delivery: Delivery, retry: Delivery, now: float) -> None:
        """Have its retry in the place of a taken one."""
        name = self._remove(delivery)
        self._lanes[name][0] = retry
        self._due[retry] = now + retry.wait
        self._come_first(retry, name)

    def end(self, delivery: Delivery) -> None:
        """Let the next of its lane go, after a taken one."""
        name = self._remove(delivery)
        lane = self._lanes[name]
        lane.popleft()
        self._size -= 1
        if lane:
            self._come_first(lane[0], name)
        else:
            del self._lanes[name]

    def _remove(self, delivery: Delivery) -> Hashable:
        self.taken.discard(delivery)
        return self._names.pop(delivery)

    def _come_first(self, delivery: Delivery, name: Hashable) -> None:
        self._names[delivery] = name
        due = self._due.pop(delivery, None)
        if due is None:
            self._ready.append(delivery)
        else:
            heapq.heappush(self._waiting, (due, next(self._numbers), delivery))

    def _name(self, message: Message) -> Hashable:
        try:
            value = find(decode(message.body), self._pointer)
        except (PayloadMalformed, LookupError):
            value = None
        if value is None:
            return object()
        if isinstance(value, dict | list):
            value = json.dumps(value, sort_keys=True)
        # That 1 and true, or a list and its text, are one lane to Python is only too careful.
        return message.key, value
