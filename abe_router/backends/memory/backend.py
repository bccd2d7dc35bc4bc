"""The memory backend."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Self, cast

from abe_router.backend import (
    Backend,
    DeadLetter,
    Entry,
    ExclusiveSubscription,
    Features,
    Peeked,
    Subscription,
    SubscriptionStatus,
    read_position,
)
from abe_router.backend.rate import TokenGrant, grant
from abe_router.backends.memory.key_value import KeyValueStore
from abe_router.backends.memory.log import Clock, DedupeIndex, MessageLog
from abe_router.backends.memory.queue import SubscriptionQueue
from abe_router.backends.memory.subscription import ExclusiveMemorySubscription, MemorySubscription
from abe_router.messages.cache import remember
from abe_router.messages.message import Message
from abe_router.messages.pattern import PatternIndex


class MemoryBackend(Backend):
    """Keeps messages in this process, and loses them with it.

    `clock` gives the time, in seconds, by which leases, delays, rates and the key-value store run.
    """

    features: ClassVar[Features] = Features(durable=False, processes=False)
    #: The one that `from_env` returns.
    of_process: ClassVar[MemoryBackend]

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self.url = "memory://"
        self._clock = clock
        self._log = MessageLog(clock, lambda key: bool(self._queues_of(key)))
        self._queues: dict[tuple[str, str], SubscriptionQueue] = {}
        self._index = PatternIndex[SubscriptionQueue]()
        self._by_key: dict[str, tuple[SubscriptionQueue, ...]] = {}
        self._handles: set[MemorySubscription] = set()
        self._dedupe = DedupeIndex(clock)
        self._key_value = KeyValueStore(clock)
        self._used_until: dict[str, float] = {}

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:  # noqa: ARG003  one process shares no names
        if url.removeprefix("memory:").strip("/"):
            raise ValueError("`memory://` takes no path")
        return cls()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:  # noqa: ARG003  nothing to configure
        """Return the one of this process: all that load it by name share its messages."""
        if "of_process" not in cls.__dict__:
            cls.of_process = cls()
        return cast("Self", cls.of_process)

    async def open(self) -> None:
        return

    async def close(self) -> None:
        for handle in tuple(self._handles):
            await handle.close()

    async def append(self, messages: Sequence[Message]) -> None:
        self._append(messages)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        kept: list[Message] = []
        passed_over: list[Message] = []
        for message, window in windowed:
            (kept if not window or self._dedupe.add(message, window) else passed_over).append(message)
        self._append(kept)
        return passed_over

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        queue = self._queue(pattern, group, start)
        return MemorySubscription(pattern, group, queue, lease, self._handles, self._emit, start)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        queue = self._queue(pattern, group, start)
        return ExclusiveMemorySubscription(pattern, group, queue, lease, self._handles, self._emit, start)

    async def status(self) -> Sequence[SubscriptionStatus]:
        return [queue.status(*name) for name, queue in sorted(self._queues.items())]

    async def drop(self, pattern: str, group: str) -> bool:
        queue = self._queues.pop((pattern, group), None)
        if queue is None:
            return False
        self._index = PatternIndex((pattern, queue) for (pattern, _), queue in self._queues.items())
        self._by_key.clear()
        queue.clear(partial(self._queue, pattern, group))
        await asyncio.sleep(0)  # a waiting fetch makes it again before there is a message to miss
        return True

    async def trim(self, retain: Mapping[str, float]) -> int:
        return self._log.trim(retain)

    async def dead_letters(
        self,
        pattern: str,
        group: str,
        *,
        limit: int = 100,
        after: str = "",
        bodies: bool = True,  # noqa: ARG002  they cost nothing
    ) -> Sequence[DeadLetter]:
        queue = self._queues.get((pattern, group))
        return queue.dead_letters(limit, after) if queue else []

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        queue = self._queues.get((pattern, group))
        return queue.replay(ids) if queue else 0

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        queue = self._queues.get((pattern, group))
        return queue.purge(ids) if queue else 0

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        last_seen = read_position(after)
        if group is None:
            return self._log.peek(pattern, limit, last_seen)
        queue = self._queues.get((pattern, group))
        return queue.peek(limit, last_seen) if queue else []

    async def peek_end(self, pattern: str, group: str | None) -> str:  # noqa: ARG002
        return str(self._log.last)

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        return self._key_value.put(bucket, name, value, expected, ttl)

    async def get(self, bucket: str, name: str) -> Entry | None:
        return self._key_value.get(bucket, name)

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        return self._key_value.entries(bucket)

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        return self._key_value.delete(bucket, name, expected)

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        tokens, self._used_until[name] = grant(self._used_until.get(name, 0.0), self._clock(), rate, wanted)
        return tokens

    def _emit(self, outputs: Sequence[Message], window: float) -> None:
        self._append([output for output in outputs if not window or self._dedupe.add(output, window)])

    def _append(self, messages: Sequence[Message]) -> None:
        touched = set()
        for message in messages:
            logged = self._log.append(message)
            for queue in self._queues_of(message.key):
                queue.add(logged)
                touched.add(queue)
        for queue in touched:
            queue.wake_all()

    def _queue(self, pattern: str, group: str, start: float) -> SubscriptionQueue:
        """Return the queue of a subscription; make it when it does not exist."""
        queue = self._queues.get((pattern, group))
        if queue is None:
            queue = self._queues[pattern, group] = SubscriptionQueue(self._log, self._clock)
            self._index.add(pattern, queue)
            self._by_key.clear()
            for logged in self._log.begin(pattern, start):
                queue.add(logged)
        return queue

    def _queues_of(self, key: str) -> tuple[SubscriptionQueue, ...]:
        queues = self._by_key.get(key)
        if queues is None:
            queues = tuple(self._index.match(key))
            remember(self._by_key, key, queues)
        return queues
