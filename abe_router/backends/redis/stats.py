"""Counts what each subscription has, and finds its oldest message that is ready.

It asks the server, because other processes may hold the messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from abe_router.backend import SubscriptionStatus
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import accepted_at
from abe_router.backends.redis.names import Names, group_name, position_before
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import COUNT, COUNT_AFTER


class Stats:
    """The counts of the subscriptions of a registry."""

    def __init__(self, connection: Connection, names: Names, registry: Registry) -> None:
        self._connection, self._names, self._registry = connection, names, registry

    async def status(self) -> list[SubscriptionStatus]:
        """Return the counts of all subscriptions, sorted by pattern and group."""
        sent: list[tuple[str, str, list[tuple[str, asyncio.Future[Any]]]]] = []
        keys = await self._registry.keys()
        for pattern, group, start in await self._registry.subscriptions():
            own = self._registry.matching(pattern, keys)
            sent.append((pattern, group, [(key, self._ask(pattern, group, start, key)) for key in own]))
        return [await self._counts(*subscription) for subscription in sent]

    def _ask(self, pattern: str, group: str, start: int, key: str) -> asyncio.Future[Any]:
        name = group_name(pattern, group)
        names = self._names
        keys = (names.stream(key), names.delayed(key, name), names.dead(key, name))
        return self._connection.run(COUNT, keys, (name, position_before(start)))

    async def _counts(
        self, pattern: str, group: str, replies: Sequence[tuple[str, asyncio.Future[Any]]]
    ) -> SubscriptionStatus:
        ready = in_flight = waiting = dead = 0
        oldest: list[float] = []
        for key, reply in replies:
            lag, last, pending, released, delayed, dead_letters, first = await reply
            ready += released + (lag if lag >= 0 else await self._count_after(key, last))
            in_flight += max(0, pending - released - delayed)
            waiting += delayed
            dead += dead_letters
            if first:
                oldest.append(accepted_at(first))
        return SubscriptionStatus(
            pattern, group, ready, in_flight, waiting, dead, oldest_at=min(oldest, default=None)
        )

    async def _count_after(self, key: str, last: bytes) -> int:
        """Count the entries after one: Redis cannot after deletions, or when a group began midway."""
        total, first = 0, b"(" + last
        while first:
            count, first = await self._connection.run(COUNT_AFTER, (self._names.stream(key),), (first,))
            total += count
        return total
