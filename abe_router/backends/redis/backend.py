"""The backend on Redis Streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Self, TypeVar
from urllib.parse import parse_qsl, quote

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
from abe_router.backend.substitute import refuse_in_test
from abe_router.backend.time_limit import publish_timeout
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.answers import refuses_unreadable
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.dead_letters import DeadLetters
from abe_router.backends.redis.exclusive import ExclusiveRedisSubscription
from abe_router.backends.redis.handshake import ClusterFound
from abe_router.backends.redis.health import Health
from abe_router.backends.redis.key_value import KeyValueStore
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import CLUSTER_TAG, Names, group_name, position_before
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.peek import Peek, end_cursor
from abe_router.backends.redis.scripts import DROP
from abe_router.backends.redis.subscription import RedisSubscription
from abe_router.messages.message import Message

_TRUE = ("1", "true", "yes", "on")

H = TypeVar("H", RedisSubscription, ExclusiveRedisSubscription)


@refuses_unreadable
class RedisBackend(Backend):
    """Keeps messages in Redis 7.0 or later, or Valkey 7.2 or later, as durably as the server does.

    Nothing is sent twice, and nothing that a group has yet to settle is trimmed. What the server itself
    loses, by eviction, failover or the trimming of other programs, is logged when it shows.
    """

    def __init__(self, address: Address, *, prefix: str = "", credentials: Credentials | None = None) -> None:
        self._prefix = prefix
        self._use(address)
        self._credentials = credentials or Credentials(address)
        self._node: Node | None = None
        #: The node that has not been open yet: its server may turn out to be part of a cluster.
        self._new_node: Node | None = None

    def _use(self, address: Address) -> None:
        """Use an address. On a cluster all names have one hash tag, which is never empty."""
        tag = address.tag or ((self._prefix or CLUSTER_TAG) if address.is_cluster else "")
        self.url, self._address, self._names = address.public, address, Names(self._prefix, tag)
        self.publish_timeout = address.publish_timeout

    @classmethod
    def for_url(cls, url: str) -> type[Backend]:
        if "slots" not in dict(parse_qsl(url.partition("?")[2])):
            return cls
        from abe_router.backends.redis.partitioned import PartitionedRedisBackend

        return PartitionedRedisBackend

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        address = Address.parse(url)
        if address.slots:
            raise ValueError("option `slots` needs PartitionedRedisBackend, as `make_backend` returns it")
        return cls(address, prefix=prefix)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Make the backend of `url_from_env`."""
        return cls(Address.parse(cls.url_from_env(env)))

    @classmethod
    def url_from_env(cls, env: Mapping[str, str]) -> str:
        """Return REDIS_URL, completed by REDIS_PASSWORD and REDIS_SSL.

        REDIS_MAX_CONNECTIONS is ignored: two connections serve all subscriptions.
        """
        url = env.get("REDIS_URL") or "redis://localhost:6379/0"
        if env.get("REDIS_SSL", "").lower() in _TRUE and url.startswith(("redis:", "redis+")):
            url = f"rediss{url.removeprefix('redis')}"
        if password := env.get("REDIS_PASSWORD"):
            url += f"{'&' if '?' in url else '?'}password={quote(password, safe='')}"
        return url

    @property
    def node(self) -> str:
        return self._node.place if self._node else ""

    async def open(self) -> None:
        await self._opened()

    async def close(self) -> None:
        nodes = self._node, self._new_node
        self._node = self._new_node = None
        for node in nodes:
            if node:
                await node.close()

    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        # Most of many callers have one message, and a coroutine more would slow them down.
        return self._node.appender.append(messages) if self._node else self._append(messages)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        return await self.append_within(windowed, self.publish_timeout)

    async def append_within(
        self, windowed: Sequence[tuple[Message, float]], seconds: float
    ) -> Sequence[Message]:
        until = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(until):
                node = await self._opened()
        except TimeoutError:
            raise publish_timeout(f"`{self.url}`", sent=False) from None
        return await node.appender.append_until(windowed, until)

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        return await self.make_handle(RedisSubscription, pattern, group, start=start, lease=lease)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        return await self.make_handle(ExclusiveRedisSubscription, pattern, group, start=start, lease=lease)

    async def status(self) -> Sequence[SubscriptionStatus]:
        node = await self._opened()
        return await node.registry.status()

    async def drop(self, pattern: str, group: str) -> bool:
        node = await self._opened()
        removed = await node.registry.remove(pattern, group)
        # A drop that was cut off is repeated, and then has to remove the rest.
        if not (removed or await node.registry.dropped(pattern, group)):
            return False
        await node.close_handles(pattern, group)
        name, names = group_name(pattern, group), self._names
        keys = node.registry.matching(pattern, await node.registry.keys())
        replies = [
            node.connection.run(
                DROP,
                (
                    *(names.stream(k), names.failures(k, name), names.delayed(k, name), names.dead(k, name)),
                    *(names.owner(k, name), names.released(k, name)),
                ),
                (name,),
            )
            for k in keys
        ]
        found = await asyncio.gather(*replies)
        return removed or any(found)

    async def trim(self, retain: Mapping[str, float]) -> int:
        node = await self._opened()
        return await node.registry.trim(retain)

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = "", bodies: bool = True
    ) -> Sequence[DeadLetter]:
        dead_letters = await self._dead_letters(pattern, group)
        return await dead_letters.list(limit, after, bodies=bodies)

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        dead_letters = await self._dead_letters(pattern, group)
        return await dead_letters.replay(ids)

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        dead_letters = await self._dead_letters(pattern, group)
        return await dead_letters.purge(ids)

    async def peek(
        self, pattern: str, group: str | None, *, limit: int = 100, after: str = ""
    ) -> Sequence[Peeked]:
        node = await self._opened()
        return await Peek(node.connection, self._names, node.registry).peek(pattern, group, limit, after)

    async def peek_end(self, pattern: str, group: str | None) -> str:  # noqa: ARG002
        return await end_cursor((await self._opened()).connection)

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        return await (await self._key_value()).put(bucket, name, value, expected=expected, ttl=ttl)

    async def get(self, bucket: str, name: str) -> Entry | None:
        return await (await self._key_value()).get(bucket, name)

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        return await (await self._key_value()).entries(bucket)

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        return await (await self._key_value()).delete(bucket, name, expected=expected)

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        node = await self._opened()
        return await node.registry.take_tokens(name, rate, wanted)

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        try:
            return await Health(self._address, self._credentials, self._names, served).check()
        except ClusterFound:
            self._use(self._address.as_cluster())
            return await Health(self._address, self._credentials, self._names, served).check()

    async def make_handle(
        self,
        kind: type[H],
        pattern: str,
        group: str,
        *,
        start: float,
        lease: float,
        work_came: Callable[[], None] = lambda: None,
    ) -> H:
        """Return a handle of this kind, as `subscribe` does.

        It calls `work_came` when a fetch may do more than wait.
        """
        node = await self._opened()
        millis, from_now = await node.register(pattern, group, start)
        handle = kind(node, pattern, group, start=millis, lease=lease, work_came=work_came)
        node.add(handle)
        try:
            await handle.reader.open(node.keys(pattern), "$" if from_now else position_before(millis))
        except BaseException:
            await handle.close()
            raise
        return handle

    async def _append(self, messages: Sequence[Message]) -> None:
        await self.append_within([(message, 0.0) for message in messages], self.publish_timeout)

    async def _opened(self) -> Node:
        if self._node is None:
            self._node = await self._first_opened()
        node = self._node
        await node.connection.open()
        return node

    async def _first_opened(self) -> Node:
        """Return a node whose server was reached. The server of a plain URL may be part of a cluster."""
        refuse_in_test(self.url)
        while True:
            node = self._new_node = self._new_node or Node(self._address, self._credentials, self._names)
            try:
                await node.connection.open()
            except ClusterFound:
                if self._new_node is node:
                    self._new_node = None
                    self._use(self._address.as_cluster())
                    await node.close()
            else:
                await self._check(node)
                self._new_node = None
                return node

    async def _check(self, node: Node) -> None:
        """Raise BackendError if the keys of this prefix are spread over several hash tags."""
        if self._names.tag:
            await Layout(1, self._names.tag).check(node)

    async def _key_value(self) -> KeyValueStore:
        node = await self._opened()
        return KeyValueStore(node.connection, self._names)

    async def _dead_letters(self, pattern: str, group: str) -> DeadLetters:
        node = await self._opened()
        keys = node.registry.matching(pattern, await node.registry.keys())
        return DeadLetters(node.connection, self._names, group_name(pattern, group), keys)
