"""Counts what each subscription has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from abe_router.backend import SubscriptionStatus
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, begin_at, group_name
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import COUNT, MEASURE


class Census:
    """Counts by asking the server, for it may be others who hold the messages."""

    def __init__(self, line: Line, names: Names, registry: Registry) -> None:
        self._line, self._names, self._registry = line, names, registry

    async def take(self) -> list[SubscriptionStatus]:
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
        return self._line.run(COUNT, keys, (name, begin_at(start)))

    async def _counts(
        self, pattern: str, group: str, answers: Sequence[tuple[str, asyncio.Future[Any]]]
    ) -> SubscriptionStatus:
        ready = in_flight = waiting = dead = 0
        for key, answer in answers:
            lag, last, pending, released, delayed, buried = await answer
            ready += released + (lag if lag >= 0 else await self._measure(key, last))
            in_flight += max(0, pending - released - delayed)
            waiting += delayed
            dead += buried
        return SubscriptionStatus(pattern, group, ready, in_flight, waiting, dead)

    async def _measure(self, key: str, last: bytes) -> int:
        """Count the entries after one: Redis cannot tell after deletions, or when a group began midway."""
        total, first = 0, b"(" + last
        while first:
            count, first = await self._line.run(MEASURE, (self._names.stream(key),), (first,))
            total += count
        return total
