"""The memory backend: one process, nothing durable, everything else as the contract says.

It is the reference of what the other providers do, and with an injected clock the simulator of it.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import ClassVar, Self

from abe_router.backend import (
    Acked,
    Backend,
    DeadLetter,
    Delayed,
    Delivery,
    Died,
    Features,
    Outcome,
    Subscription,
    SubscriptionStatus,
)
from abe_router.message import Message
from abe_router.pattern import matches

#: Messages kept for subscriptions that begin in the past, once some subscription has got them. Those that
#: none has got yet are all kept.
HISTORY = 10_000

Clock = Callable[[], float]


class _Entry:
    """A message within one group; `claim` rises at each hand-out, so an old receipt no longer fits."""

    __slots__ = ("claim", "deliveries", "failed_at", "holder", "lease_until", "message", "seq")

    def __init__(self, seq: int, message: Message) -> None:
        self.seq, self.message = seq, message
        self.claim = self.deliveries = 0
        self.failed_at: float | None = None
        self.holder: MemorySubscription | None = None
        self.lease_until = 0.0


class _Group:
    """What one subscription has of each message: ready, leased, delayed or dead."""

    def __init__(self, pattern: str, group: str, clock: Clock) -> None:
        self.pattern, self.group, self._clock = pattern, group, clock
        self.ready: deque[_Entry] = deque()
        self.leased: dict[int, _Entry] = {}
        self.delayed: list[tuple[float, int, _Entry]] = []
        self.dead: dict[str, tuple[DeadLetter, _Entry]] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._look_at = float("inf")  # no lease runs out before this time

    def wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wait until woken, until something falls due, or for `seconds`."""
        due = min(self._look_at, self.delayed[0][0] if self.delayed else float("inf"))
        handle = asyncio.get_running_loop().call_later(
            max(0.0, min(seconds, due - self._clock())), lambda: waiter.done() or waiter.set_result(None)
        )
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            handle.cancel()

    def add(self, entries: Iterable[_Entry]) -> None:
        self.ready.extend(entries)
        self.wake()

    def hand_back(self, entries: Iterable[_Entry]) -> None:
        """Put entries back at the front, in their order, for anyone."""
        for entry in sorted(entries, key=lambda e: e.seq, reverse=True):
            self.leased.pop(entry.seq, None)
            entry.holder = None
            self.ready.appendleft(entry)
        self.wake()

    def recover(self) -> None:
        """Make ready what is due and what was leased by someone who let the lease run out."""
        now = self._clock()
        due = []
        while self.delayed and self.delayed[0][0] <= now:
            due.append(heapq.heappop(self.delayed)[2])
        if now >= self._look_at:
            due += [entry for entry in self.leased.values() if entry.lease_until <= now]
            self._look_at = min(
                (e.lease_until for e in self.leased.values() if e.lease_until > now), default=float("inf")
            )
        if due:
            self.hand_back(due)

    def take(self, limit: int, holder: MemorySubscription, lease: float) -> list[Delivery]:
        self.recover()
        ready, leased = self.ready, self.leased
        until = self._clock() + lease
        taken = []
        for _ in range(min(limit, len(ready))):
            entry = ready.popleft()
            entry.claim += 1
            entry.deliveries += 1
            entry.holder, entry.lease_until = holder, until
            leased[entry.seq] = entry
            taken.append(Delivery(entry.message, entry.deliveries, (entry, entry.claim), entry.failed_at))
        if taken:
            self._look_at = min(self._look_at, until)
        return taken

    def settle(self, entry: _Entry, outcome: Outcome) -> None:
        if isinstance(outcome, Acked):
            del self.leased[entry.seq]
        elif isinstance(outcome, Delayed):
            del self.leased[entry.seq]
            entry.holder = None
            entry.failed_at = entry.failed_at or time.time()
            entry.message = _attempt(entry.message, entry.message.attempt + 1)
            heapq.heappush(self.delayed, (self._clock() + outcome.seconds, entry.seq, entry))
            self.wake()
        elif isinstance(outcome, Died):
            del self.leased[entry.seq]
            entry.holder = None
            letter = outcome.letter
            id = str(entry.seq)
            self.dead[id] = (_identified(letter, id), entry)
        else:
            entry.deliveries -= 1
            self.hand_back([entry])


class MemorySubscription(Subscription):
    """A handle on a group of the memory backend."""

    def __init__(self, group: _Group, lease: float, clock: Clock) -> None:
        self.pattern, self.group = group.pattern, group.group
        self._state, self._lease, self._clock = group, lease, clock
        self._interrupted = self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            taken = [] if self._closed else self._state.take(limit, self, self._lease)
            left = deadline - loop.time()
            if taken or self._interrupted or self._closed or left <= 0:
                self._interrupted = False
                return taken
            self._waiter = loop.create_future()
            await self._state.wait(self._waiter, left)

    def interrupt(self) -> None:
        self._interrupted = True
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        refused = []
        for delivery, outcome in settlements:
            entry, claim = delivery.receipt
            if self._holds(entry, claim):
                self._state.settle(entry, outcome)
            else:
                refused.append(delivery)
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        until = self._clock() + self._lease
        refused = []
        for delivery in deliveries:
            entry, claim = delivery.receipt
            if self._holds(entry, claim):
                entry.lease_until = until
            else:
                refused.append(delivery)
        return refused

    async def close(self) -> None:
        self._closed = True
        self.interrupt()

    def _holds(self, entry: _Entry, claim: int) -> bool:
        """Say whether the lease is still ours: not settled, not handed out again, and not run out."""
        return entry.claim == claim and entry.holder is self and entry.seq in self._state.leased


class MemoryBackend(Backend):
    """Keeps messages in this process, and loses them with it.

    `clock` gives the time, in seconds, by which leases and delays run.
    """

    features: ClassVar[Features] = Features(durable=False, processes=False)

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self.url = "memory://"
        self._clock = clock
        self._seq = count(1)
        self._groups: dict[tuple[str, str], _Group] = {}
        self._by_key: dict[str, tuple[_Group, ...]] = {}
        self._unclaimed: dict[str, list[tuple[int, Message]]] = {}
        self._history: deque[tuple[int, Message]] = deque(maxlen=HISTORY)
        self._subscriptions: list[MemorySubscription] = []
        self._announced: dict[str, tuple[float, bytes]] = {}

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:  # noqa: ARG003  one process shares no names
        if url.removeprefix("memory:").strip("/"):
            raise ValueError("`memory://` takes no path")
        return cls()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:  # noqa: ARG003  there is nothing to configure
        return cls()

    async def open(self) -> None:
        return

    async def close(self) -> None:
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    async def append(self, messages: Sequence[Message]) -> None:
        touched: dict[_Group, None] = {}
        for message in messages:
            seq, first = next(self._seq), _attempt(message, 1)
            groups = self._groups_of(message.key)
            if not groups:
                self._unclaimed.setdefault(message.key, []).append((seq, first))
                continue
            self._history.append((seq, first))
            for group in groups:
                group.ready.append(_Entry(seq, first))
                touched[group] = None
        for group in touched:
            group.wake()

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        state = self._groups.get((pattern, group))
        if state is None:
            state = self._groups[pattern, group] = _Group(pattern, group, self._clock)
            self._by_key.clear()
            claimed = [m for key in list(self._unclaimed) if matches(pattern, key) for m in self._unclaimed.pop(key)]
            past = [(s, m) for s, m in self._history if matches(pattern, m.key)]
            kept = sorted([*past, *claimed], key=lambda item: item[0])
            state.add(_Entry(s, m) for s, m in kept if m.published_at >= start)
            self._history = deque(sorted([*self._history, *claimed], key=lambda item: item[0]), maxlen=HISTORY)
        subscription = MemorySubscription(state, lease, self._clock)
        self._subscriptions.append(subscription)
        return subscription

    async def status(self) -> Sequence[SubscriptionStatus]:
        for group in self._groups.values():
            group.recover()
        return [
            SubscriptionStatus(
                pattern, name, len(g.ready), len(g.leased), len(g.delayed), len(g.dead)
            )
            for (pattern, name), g in sorted(self._groups.items())
        ]

    async def drop(self, pattern: str, group: str) -> bool:
        self._by_key.clear()
        return self._groups.pop((pattern, group), None) is not None

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        letters = [letter for letter, _ in self._dead(pattern, group).values()]
        ids = [letter.id for letter in letters]
        begin = ids.index(after) + 1 if after in ids else 0
        return letters[begin : begin + limit]

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        dead = self._dead(pattern, group)
        entries = [dead.pop(id)[1] for id in ids if id in dead]
        for entry in entries:
            entry.deliveries, entry.failed_at = 0, None
            entry.message = _attempt(entry.message, 1)
        if entries:
            self._groups[pattern, group].add(entries)
        return len(entries)

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        dead = self._dead(pattern, group)
        return sum(dead.pop(id, None) is not None for id in ids)

    async def announce(self, worker: str, state: bytes, ttl: float) -> None:
        if state:
            self._announced[worker] = (self._clock() + ttl, state)
        else:
            self._announced.pop(worker, None)

    async def announcements(self) -> Mapping[str, bytes]:
        now = self._clock()
        self._announced = {w: (until, s) for w, (until, s) in self._announced.items() if until > now}
        return {worker: state for worker, (_, state) in sorted(self._announced.items())}

    def _groups_of(self, key: str) -> tuple[_Group, ...]:
        groups = self._by_key.get(key)
        if groups is None:
            groups = tuple(g for (pattern, _), g in self._groups.items() if matches(pattern, key))
            if len(self._by_key) >= HISTORY:
                self._by_key.clear()
            self._by_key[key] = groups
        return groups

    def _dead(self, pattern: str, group: str) -> dict[str, tuple[DeadLetter, _Entry]]:
        state = self._groups.get((pattern, group))
        return state.dead if state else {}


def _attempt(m: Message, attempt: int) -> Message:
    return Message(m.id, m.key, m.body, m.headers, m.published_at, attempt)


def _identified(letter: DeadLetter, id: str) -> DeadLetter:
    fields = {name: getattr(letter, name) for name in letter.__struct_fields__}
    return DeadLetter(**{**fields, "id": id})
