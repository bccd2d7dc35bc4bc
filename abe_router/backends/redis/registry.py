"""What all processes under one prefix know in common: keys, subscriptions, workers, rates."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from abe_router.backend import RETAIN_TTL
from abe_router.backend.rate import BURST, TokenGrant
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, subscription_name
from abe_router.backends.redis.scripts import ANNOUNCE, ENTER, LIVING, NOTE, PERMIT, RETAIN
from abe_router.messages.pattern import is_wild, matches


class Registry:
    """The names that are kept in Redis besides the streams themselves."""

    def __init__(self, line: Line, names: Names) -> None:
        self._line, self._names = line, names

    def note(self, keys: Iterable[str]) -> asyncio.Future[Any]:
        """Send word of keys that have a stream; the answer says how many were new."""
        return self._line.run(NOTE, (self._names.keys, self._names.news), tuple(keys))

    @staticmethod
    def matching(pattern: str, keys: Iterable[str]) -> list[str]:
        """Return the keys of a subscription among those that are known."""
        return [key for key in keys if matches(pattern, key)] if is_wild(pattern) else [pattern]

    async def keys(self) -> list[str]:
        """Return the keys that someone noted."""
        return [key.decode() for key in await self._line.send("SMEMBERS", self._names.keys)]

    async def streams(self) -> AsyncIterator[list[str]]:
        """Yield, in batches, the keys of the streams that are there, whoever made them."""
        match = re.sub(r"([*?\[\]\\])", r"\\\1", self._names.prefix) + "*"
        cursor: bytes | int = 0
        while True:
            cursor, found = await self._line.send(
                "SCAN", cursor, "MATCH", match, "COUNT", 1000, "TYPE", "stream"
            )
            named = (self._names.key(name.decode("utf-8", "replace")) for name in found)
            yield [key for key in named if key]
            if cursor == b"0":
                return

    async def enter(self, pattern: str, group: str, start: int | None) -> tuple[int, bool]:
        """Note a subscription; return its start in milliseconds since the epoch, and whether it is new.

        Who comes first decides the start; None is now, by the server's clock.
        """
        keys = (self._names.subscriptions, self._names.dropped, self._names.entered)
        args = (subscription_name(pattern, group), "" if start is None else start, secrets.token_bytes(8))
        known, new = await self._line.run(ENTER, keys, args)
        return int(known), bool(new)

    async def subscriptions(self) -> list[tuple[str, str, int]]:
        """Return pattern, group and start of each subscription, sorted."""
        flat = [field.decode() for field in await self._line.send("HGETALL", self._names.subscriptions)]
        named = ((name.rpartition("/"), start) for name, start in zip(flat[::2], flat[1::2], strict=True))
        return sorted((pattern, group, int(start)) for (pattern, _, group), start in named)

    async def leave(self, pattern: str, group: str) -> bool:
        """Strike a subscription from the list, so that nobody restores it; return whether it was there."""
        name = subscription_name(pattern, group)
        if not await self._line.send("HEXISTS", self._names.subscriptions, name):
            return False
        self._line.send("SADD", self._names.dropped, name)
        return bool(await self._line.send("HDEL", self._names.subscriptions, name))

    async def dropped(self, pattern: str, group: str) -> bool:
        """Say whether a subscription was dropped and not made again."""
        return bool(
            await self._line.send("SISMEMBER", self._names.dropped, subscription_name(pattern, group))
        )

    async def retain(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """Note for how many seconds messages are to be kept, by pattern; return the longest anyone wants."""
        flat = [part for pattern, s in wanted.items() for part in (pattern, math.ceil(s * 1000))]
        found = await self._line.run(RETAIN, (self._names.retention,), (round(RETAIN_TTL * 1000), *flat))
        longest: dict[str, float] = {}
        for pattern, millis in zip(found[::2], found[1::2], strict=True):
            name = pattern.decode()
            longest[name] = max(int(millis) / 1000, longest.get(name, 0.0))
        return longest

    async def announce(self, worker: str, state: bytes, ttl: float) -> None:
        """Keep the word of a worker for `ttl` seconds, or withdraw it when it is empty."""
        if state:
            await self._line.run(ANNOUNCE, (self._names.workers,), (worker, int(ttl * 1000), state))
        else:
            await self._line.send("HDEL", self._names.workers, worker)

    async def announcements(self) -> Mapping[str, bytes]:
        """Return the words of the living workers."""
        living = await self._line.run(LIVING, (self._names.workers,))
        return {living[i].decode(): living[i + 1] for i in range(0, len(living), 2)}

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant tokens at a rate that all processes keep together, by the server's clock."""
        args = (rate, max(1.0, rate * BURST), wanted)
        granted, micros = await self._line.run(PERMIT, (self._names.rate(name),), args)
        return TokenGrant(granted, micros / 1_000_000)
