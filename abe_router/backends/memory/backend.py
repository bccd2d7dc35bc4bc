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
    Subscription,
    SubscriptionStatus,
)
from abe_router.backend.rate import TokenGrant, grant
from abe_router.backends.memory.exclusive import ExclusiveMemorySubscription
from abe_router.backends.memory.group import Clock, Group
from abe_router.backends.memory.ids import Ids
from abe_router.backends.memory.log import Log
from abe_router.backends.memory.subscription import MemorySubscription
from abe_router.messages.message import Message
from abe_router.messages.pattern import matches

#: Routing keys whose groups are remembered.
KEYS = 10_000


class MemoryBackend(Backend):
    """Keeps messages in this process, and loses them with it.

    `clock` gives the time, in seconds, by which leases, delays and announcements run.
    """

    features: ClassVar[Features] = Features(durable=False, processes=False)
    #: The one that `from_env` returns.
    of_process: ClassVar[MemoryBackend]

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self.url = "memory://"
        self._clock = clock
        self._log = Log(clock, lambda key: bool(self._groups_of(key)))
        self._groups: dict[tuple[str, str], Group] = {}
        self._by_key: dict[str, tuple[Group, ...]] = {}
        self._handles: set[MemorySubscription] = set()
        self._ids = Ids(clock)
        self._used_until: dict[str, float] = {}
        self._store: dict[tuple[str, str], tuple[float, Entry]] = {}
        self._revision = 0

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:  # noqa: ARG003  one process shares no names
        if url.removeprefix("memory:").strip("/"):
            raise ValueError("`memory://` takes no path")
        return cls()

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:  # noqa: ARG003  nothing to configure
        """Return the one of this process: all who load it by name share its messages."""
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
            (kept if not window or self._ids.add(message, window) else passed_over).append(message)
        self._append(kept)
        return passed_over

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        entries = self._begin(pattern, group, start)
        return MemorySubscription(pattern, group, entries, lease, self._handles, self._emit, start)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        entries = self._begin(pattern, group, start)
        return ExclusiveMemorySubscription(pattern, group, entries, lease, self._handles, self._emit, start)

    async def status(self) -> Sequence[SubscriptionStatus]:
        return [entries.counts(*name) for name, entries in sorted(self._groups.items())]

    async def drop(self, pattern: str, group: str) -> bool:
        entries = self._groups.pop((pattern, group), None)
        if entries is None:
            return False
        self._by_key.clear()
        entries.forget(partial(self._begin, pattern, group))
        await asyncio.sleep(0)  # a waiting fetch begins it anew, before there is something to miss
        return True

    async def trim(self, retain: Mapping[str, float]) -> int:
        return self._log.trim(retain)

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        entries = self._groups.get((pattern, group))
        return entries.letters(limit, after) if entries else []

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        entries = self._groups.get((pattern, group))
        if entries is None:
            return 0
        messages = entries.bury(ids)
        for kept in messages:
            entries.add(kept)
        entries.wake()
        return len(messages)

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        entries = self._groups.get((pattern, group))
        return len(entries.bury(ids)) if entries else 0

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        known = await self.get(bucket, name)
        if expected is not None and expected != (known.revision if known else 0):
            return 0
        self._revision += 1
        until = float("inf") if ttl is None else self._clock() + ttl
        self._store[bucket, name] = (until, Entry(value, self._revision))
        return self._revision

    async def get(self, bucket: str, name: str) -> Entry | None:
        until, entry = self._store.get((bucket, name), (0.0, None))
        return entry if until > self._clock() else None

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        return {
            name: entry
            for (b, name), (until, entry) in self._store.items()
            if b == bucket and until > self._clock()
        }

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        known = await self.get(bucket, name)
        if known is None or (expected is not None and expected != known.revision):
            return False
        del self._store[bucket, name]
        return True

    def _emit(self, outputs: Sequence[Message], window: float) -> None:
        self._append([output for output in outputs if not window or self._ids.add(output, window)])

    def _append(self, messages: Sequence[Message]) -> None:
        touched = set()
        for message in messages:
            kept = self._log.append(message)
            for group in self._groups_of(message.key):
                group.add(kept)
                touched.add(group)
        for group in touched:
            group.wake()

    def _begin(self, pattern: str, group: str, start: float) -> Group:
        """Return what the group has, making it when it does not exist."""
        entries = self._groups.get((pattern, group))
        if entries is None:
            entries = self._groups[pattern, group] = Group(self._log, self._clock)
            self._by_key.clear()
            for kept in self._log.begin(pattern, start):
                entries.add(kept)
        return entries

    def _groups_of(self, key: str) -> tuple[Group, ...]:
        groups = self._by_key.get(key)
        if groups is None:
            groups = tuple(g for (pattern, _), g in self._groups.items() if matches(pattern, key))
            if len(self._by_key) >= KEYS:
                self._by_key.clear()
            self._by_key[key] = groups
        return groups

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        tokens, self._used_until[name] = grant(self._used_until.get(name, 0.0), self._clock(), rate, wanted)
        return tokens
