"""The backend on Redis Streams."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Self

from abe_router.backend import (
    Backend,
    DeadLetter,
    ExclusiveSubscription,
    HealthResult,
    Subscription,
    SubscriptionName,
    SubscriptionStatus,
)
from abe_router.backend.rate import TokenGrant
from abe_router.backends.redis.address import Address, Tls
from abe_router.backends.redis.census import Census
from abe_router.backends.redis.examination import Examination
from abe_router.backends.redis.exclusive import ExclusiveRedisSubscription
from abe_router.backends.redis.letters import Letters
from abe_router.backends.redis.names import Names, group_name
from abe_router.backends.redis.scripts import DROP
from abe_router.backends.redis.session import Session
from abe_router.backends.redis.subscription import RedisSubscription
from abe_router.backends.redis.trim import trim
from abe_router.messages.message import Message

_TRUE = ("1", "true", "yes", "on")


class RedisBackend(Backend):
    """Keeps messages in Redis 7.0 or later, or Valkey 7.2 or later, as durably as the server does.

    Nothing is sent twice, and nothing that a group has yet to settle is trimmed: what the server forgets by
    itself, by eviction, failover or someone else's trimming, is logged when it shows.
    """

    def __init__(self, address: Address, *, prefix: str = "") -> None:
        self.url = address.public
        self._address, self._names = address, Names(prefix)
        self._session: Session | None = None

    @classmethod
    def from_url(cls, url: str, *, prefix: str = "") -> Self:
        return cls(Address.parse(url), prefix=prefix)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read REDIS_URL, and REDIS_PASSWORD and REDIS_SSL, which complete it.

        REDIS_MAX_CONNECTIONS has nothing to limit here: two connections serve all subscriptions.
        """
        address = Address.parse(env.get("REDIS_URL") or "redis://localhost:6379/0")
        if password := env.get("REDIS_PASSWORD"):
            address = replace(address, password=password)
        if env.get("REDIS_SSL", "").lower() in _TRUE and not address.path:
            address = replace(address, tls=address.tls or Tls())
        return cls(address)

    async def open(self) -> None:
        await (await self._opened()).line.open()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session:
            await session.close()

    def append(self, messages: Sequence[Message]) -> Awaitable[None]:
        # Of many callers each has one message, and for them a coroutine more is felt.
        return self._session.publisher.append(messages) if self._session else self._append(messages)

    async def append_once(self, windowed: Sequence[tuple[Message, float]]) -> Sequence[Message]:
        session = await self._opened()
        return await session.deduplicator.append(windowed)

    async def subscribe(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> Subscription:
        session = await self._opened()
        return await session.subscribe(RedisSubscription, pattern, group, start, lease)

    async def subscribe_exclusive(
        self, pattern: str, group: str, *, start: float = 0.0, lease: float = 30.0
    ) -> ExclusiveSubscription:
        session = await self._opened()
        return await session.subscribe(ExclusiveRedisSubscription, pattern, group, start, lease)

    async def status(self) -> Sequence[SubscriptionStatus]:
        session = await self._opened()
        return await Census(session.line, self._names, session.registry).take()

    async def drop(self, pattern: str, group: str) -> bool:
        session = await self._opened()
        listed = await session.registry.leave(pattern, group)
        # Who was cut off in the middle tries again, and then the rest of it has to go.
        if not (listed or await session.registry.dropped(pattern, group)):
            return False
        await session.close_handles(pattern, group)
        name, names = group_name(pattern, group), self._names
        keys = session.registry.matching(pattern, await session.registry.keys())
        gone = [
            session.line.run(
                DROP,
                (
                    *(names.stream(k), names.failures(k, name), names.delayed(k, name), names.dead(k, name)),
                    *(names.place(k, name), names.left(k, name)),
                ),
                (name,),
            )
            for k in keys
        ]
        found = await asyncio.gather(*gone)
        return listed or any(found)

    async def trim(self, retain: Mapping[str, float]) -> int:
        session = await self._opened()
        return await trim(session.line, self._names, session.registry, retain)

    async def dead_letters(
        self, pattern: str, group: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[DeadLetter]:
        letters = await self._letters(pattern, group)
        return await letters.list(limit, after)

    async def replay(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        letters = await self._letters(pattern, group)
        return await letters.replay(ids)

    async def purge(self, pattern: str, group: str, ids: Sequence[str]) -> int:
        letters = await self._letters(pattern, group)
        return await letters.purge(ids)

    async def announce(self, worker: str, state: bytes, ttl: float) -> None:
        session = await self._opened()
        await session.registry.announce(worker, state, ttl)

    async def announcements(self) -> Mapping[str, bytes]:
        session = await self._opened()
        return await session.registry.announcements()

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        session = await self._opened()
        return await session.registry.take_tokens(name, rate, wanted)

    async def check_health(
        self, served: Collection[SubscriptionName] | None = None
    ) -> Sequence[HealthResult]:
        return await Examination(self._address, self._names, served).run()

    async def _append(self, messages: Sequence[Message]) -> None:
        await (await self._opened()).publisher.append(messages)

    async def _opened(self) -> Session:
        if self._session is None:
            self._session = Session(self._address, self._names)
        await self._session.line.open()
        return self._session

    async def _letters(self, pattern: str, group: str) -> Letters:
        session = await self._opened()
        keys = session.registry.matching(pattern, await session.registry.keys())
        return Letters(session.line, self._names, group_name(pattern, group), keys)
