"""The backend whose keys are spread over several hash tags."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

import msgspec

from abe_router.backend import (
    Backend,
    DeadLetter,
    Entry,
    ExclusiveSubscription,
    HealthResult,
    Peeked,
    Subscription,
    SubscriptionName,
    SubscriptionStatus,
)
from abe_router.backend.rate import TokenGrant
from abe_router.backend.time_limit import publish_timeout
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.entry import order, require_text
from abe_router.backends.redis.exclusive import ExclusiveRedisSubscription
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import CLUSTER_TAG
from abe_router.backends.redis.partitioned.health import check_partitions
from abe_router.backends.redis.partitioned.merging import (
    PartitionPages,
    add_outputs,
    join,
    merged,
    split,
    sum_statuses,
)
from abe_router.backends.redis.partitioned.mover import Movers
from abe_router.backends.redis.partitioned.outbox import waiting
from abe_router.backends.redis.partitioned.partition import Partition, all_of
from abe_router.backends.redis.partitioned.subscription import (
    H,
    PartitionedExclusive,
    PartitionedSubscription,
)
from abe_router.backends.redis.subscription import RedisSubscription
from abe_router.errors import PublishTimeout
from abe_router.messages.message import Message
from abe_router.messages.pattern import is_wild

S = TypeVar("S", bound=PartitionedSubscription[Any])
T = TypeVar("T")


class PartitionedRedisBackend(Backend):
    """Spreads the keys of one prefix over so many hash tags as `slots` says, and so over many masters.

    What belongs to a key lies in its partition. The key-value store and the rates lie in the first one.
    """

    def __init__(self, address: Address, *, prefix: str = "") -> None:
        home = address.tag or prefix or CLUSTER_TAG
        # With a tag in the URL, a single server is taken as it is.
        nodes = address if address.is_cluster or address.tag else address.as_cluster()
        credentials = Credentials(address)
        self.url, self.publish_timeout = address.public, address.publish_timeout
        self._layout = Layout(address.slots, home)
        self._partitions = [
            Partition(replace(nodes, tag=tag), prefix=prefix, credentials=credentials)
            for tag in self._layout.tags
        ]
        self._is_checked = False
        self._handles: set[PartitionedSubscription[Any]] = set()
        self._movers = Movers(self._partitions, self._layout)

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        address = Address.parse(url)
        if not address.slots:
            raise ValueError("option `slots` must be at least 1")
        return cls(address, prefix=prefix)

    @property
    def node(self) -> str:
        return ", ".join(sorted({each.node for each in self._partitions} - {""}))

    async def open(self) -> None:
        home = await self._partitions[0].opened()
        if not self._is_checked:
            await self._layout.record(home)
            self._is_checked = True

    async def close(self) -> None:
        self._is_checked = False
        for handle in tuple(self._handles):
            await handle.close()
        await self._movers.close()
        await asyncio.gather(*(each.close() for each in self._partitions))

    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        # Most of many callers have one message, and a coroutine more would slow them down.
        if len(messages) == 1 and self._is_checked:
            return self._of(messages[0].key).append(messages)
        return self._append(messages)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        return await self.append_within(windowed, self.publish_timeout)

    async def append_within(
        self, windowed: Sequence[tuple[Message, float]], seconds: float
    ) -> Sequence[Message]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            async with asyncio.timeout_at(until):
                await self.open()
        except TimeoutError:
            raise publish_timeout(f"`{self.url}`", sent=False) from None
        require_text(message for message, _ in windowed)
        parts, left = self._parts(windowed, lambda each: each[0].key), until - loop.time()
        calls = [self._partitions[number].append_within(part, left) for number, part in parts.items()]
        try:
            found = await all_of(calls)
        except PublishTimeout as error:
            raise publish_timeout(f"`{self.url}`", sent=error.sent or len(parts) > 1) from None
        return [message for skipped in found for message in skipped]

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        made = partial(PartitionedSubscription[RedisSubscription], pattern, group, lease=lease)
        return await self._subscribe(made, RedisSubscription, start, lease)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        made = partial(PartitionedExclusive, pattern, group, lease=lease)
        return await self._subscribe(made, ExclusiveRedisSubscription, start, lease)

    async def status(self) -> Sequence[SubscriptionStatus]:
        """Return the counts of all partitions. Outputs on their way to another one count as ready."""
        await self.open()
        # They are read first: an output that is moved meanwhile is counted twice rather than not at all.
        outputs = await all_of([self._waiting(each) for each in self._partitions])
        statuses = sum_statuses(await all_of([each.status() for each in self._partitions]))
        return add_outputs(statuses, [output for found in outputs for output in found])

    async def drop(self, pattern: str, group: str) -> bool:
        await self.open()
        return any(await all_of([each.drop(pattern, group) for each in self._matching(pattern)]))

    async def trim(self, retain: Mapping[str, float]) -> int:
        await self.open()
        return sum(await all_of([each.trim(retain) for each in self._partitions]))

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = "", bodies: bool = True
    ) -> Sequence[DeadLetter]:
        await self.open()

        async def read(partition: Partition, count: int, after: str) -> Sequence[DeadLetter]:
            return await partition.dead_letters(pattern, group, limit=count, after=after, bodies=bodies)

        sources = [
            PartitionPages(partial(read, each), lambda found: found.id, after, short_ends=False)
            for each in self._matching(pattern)
        ]
        return [found for found, _ in await merged(sources, limit, _time_and_key)]

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        await self.open()
        parts = self._parts(ids, lambda id: id.rpartition(":")[0])
        calls = [self._partitions[number].replay(pattern, group, part) for number, part in parts.items()]
        return sum(await all_of(calls))

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        await self.open()
        parts = self._parts(ids, lambda id: id.rpartition(":")[0])
        calls = [self._partitions[number].purge(pattern, group, part) for number, part in parts.items()]
        return sum(await all_of(calls))

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        await self.open()
        if not is_wild(pattern):
            return await self._of(pattern).peek(pattern, group, limit=limit, after=after)
        if limit < 1:
            return []

        async def read(partition: Partition, count: int, after: str) -> Sequence[Peeked]:
            return await partition.peek(pattern, group, limit=count, after=after)

        sources = [
            PartitionPages(partial(read, each), lambda found: found.cursor, position, short_ends=True)
            for each, position in zip(self._partitions, split(after, self._layout.count), strict=True)
        ]
        found = await merged(sources, limit, lambda peeked: peeked.message.published_at)
        return [msgspec.structs.replace(peeked, cursor=cursor) for peeked, cursor in found]

    async def peek_end(self, pattern: str, group: str | None) -> str:
        await self.open()
        ends = await all_of([each.peek_end(pattern, group) for each in self._matching(pattern)])
        return join(iter(ends)) if is_wild(pattern) else ends[0]

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        await self.open()
        return await self._partitions[0].put(bucket, name, value, expected=expected, ttl=ttl)

    async def get(self, bucket: str, name: str) -> Entry | None:
        await self.open()
        return await self._partitions[0].get(bucket, name)

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        await self.open()
        return await self._partitions[0].entries(bucket)

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        await self.open()
        return await self._partitions[0].delete(bucket, name, expected=expected)

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        await self.open()
        return await self._partitions[0].take_tokens(name, rate, wanted)

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        was_open = self._is_checked
        try:
            return await check_partitions(self._partitions, self._layout, served)
        finally:
            if not was_open:
                await self.close()

    async def _append(self, messages: Sequence[Message]) -> None:
        await self.append_within([(message, 0.0) for message in messages], self.publish_timeout)

    async def _subscribe(self, make: Callable[..., S], kind: type[H], start: float, lease: float) -> S:
        await self.open()
        handle: S = make(number=self._layout.number, closed=lambda: self._handles.discard(handle))
        partitions = self._matching(handle.pattern)
        opening = [
            each.make_handle(
                kind, handle.pattern, handle.group, start=start, lease=lease, work_came=handle.wake
            )
            for each in partitions
        ]
        opened = await asyncio.gather(*opening, return_exceptions=True)
        numbers = map(self._partitions.index, partitions)
        handles = {
            n: each for n, each in zip(numbers, opened, strict=True) if not isinstance(each, BaseException)
        }
        handle.use(handles)
        self._handles.add(handle)
        for error in opened:
            if isinstance(error, BaseException):
                await handle.close()
                raise error
        self._movers.start()
        return handle

    async def _waiting(self, partition: Partition) -> Sequence[tuple[str, float]]:
        return await waiting(await partition.opened()) if self._layout.count > 1 else ()

    def _of(self, key: str) -> Partition:
        return self._partitions[self._layout.number(key)]

    def _matching(self, pattern: str) -> Sequence[Partition]:
        """Return the partitions that may have a key which matches."""
        return self._partitions if is_wild(pattern) else [self._of(pattern)]

    def _parts(self, items: Sequence[T], key: Callable[[T], str]) -> Mapping[int, list[T]]:
        """Return the items by the number of the partition of their key, in order."""
        parts: dict[int, list[T]] = defaultdict(list)
        for item in items:
            parts[self._layout.number(key(item))].append(item)
        return parts


def _time_and_key(dead_letter: DeadLetter) -> tuple[tuple[int, int], str]:
    key, _, entry = dead_letter.id.rpartition(":")
    return order(entry.encode()), key
