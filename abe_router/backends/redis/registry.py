"""What all processes under one prefix share: keys, subscriptions with their counts, retention and rates.

The server may lose the hash that lists the subscriptions: `DEL` and eviction take one key and leave the
others. Without the hash the messages still arrive, but nothing is trimmed, and `status` and `dead list` show
no subscription. So each process keeps its own subscriptions registered.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from abe_router.backend import RETAIN_TTL, SubscriptionStatus
from abe_router.backend.rate import BURST, TokenGrant
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import accepted_at, read_count
from abe_router.backends.redis.names import Names, group_name, position_before, subscription_name
from abe_router.backends.redis.protocol import Arg, ServerError
from abe_router.backends.redis.scripts import (
    ADD_KEYS,
    COUNT,
    COUNT_AFTER,
    REGISTER,
    RESTORE,
    RETAIN,
    TAKE_TOKENS,
    TRIM,
)
from abe_router.errors import BackendError
from abe_router.messages.pattern import PatternIndex, is_wild, matches

_log = logging.getLogger(__name__)

#: Entries after which a call that trims ends, which takes the server one or two milliseconds.
_PIECE = 10_000
#: Streams trimmed in one call, and subscriptions checked in one call.
_CHUNK, _CHECKED = 50, 500
#: Time between two checks of the registrations, in seconds.
INTERVAL = 2.0
#: Most subscriptions that a log line names.
_NAMED = 3


class Registry:
    """The names that Redis keeps besides the streams themselves."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection, self._names = connection, names

    def add_keys(self, keys: Iterable[str]) -> asyncio.Future[Any]:
        """Record keys that have a stream; the reply says how many were new."""
        return self._connection.run(ADD_KEYS, (self._names.keys, self._names.new_keys), tuple(keys))

    @staticmethod
    def matching(pattern: str, keys: Iterable[str]) -> list[str]:
        """Return the keys of a subscription, from those that are known."""
        return [key for key in keys if matches(pattern, key)] if is_wild(pattern) else [pattern]

    async def keys(self) -> list[str]:
        """Return the recorded keys; what another program wrote there and is no text is left out."""
        found = await self._connection.send("SMEMBERS", self._names.keys)
        return [key for name in found if (key := _text(name)) is not None]

    async def streams(self) -> AsyncIterator[list[str]]:
        """Yield, in batches, the keys of the streams that exist, whatever program made them."""
        cursor: bytes | int = 0
        while True:
            cursor, found = await self._connection.send(
                "SCAN", cursor, "MATCH", self._names.glob, "COUNT", 1000, "TYPE", "stream"
            )
            named = (self._names.key(name.decode("utf-8", "replace")) for name in found)
            yield [key for key in named if key]
            if cursor == b"0":
                return

    async def register(self, pattern: str, group: str, start: int | None) -> tuple[int, bool]:
        """Record a subscription; return its start in milliseconds since the epoch, and whether it is new.

        The first caller decides the start; None is now, by the server's clock.
        """
        keys = (self._names.subscriptions, self._names.dropped)
        args = (subscription_name(pattern, group), "" if start is None else start)
        known, new = await self._connection.run(REGISTER, keys, args)
        return read_count(known) or 0, bool(new)

    async def subscriptions(self) -> list[tuple[str, str, int]]:
        """Return pattern, group and start of each subscription, sorted."""
        fields = await self._connection.send("HGETALL", self._names.subscriptions)
        found = []
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            pattern, slash, group = (_text(field) or "").rpartition("/")
            start = read_count(value)
            if slash and start is not None:  # else another program wrote it
                found.append((pattern, group, start))
        return sorted(found)

    async def start(self, pattern: str, group: str) -> int | None:
        """Return where a subscription starts, in milliseconds since the epoch, None if it is unknown."""
        name = subscription_name(pattern, group)
        start = await self._connection.send("HGET", self._names.subscriptions, name)
        return None if start is None else read_count(start)

    async def remove(self, pattern: str, group: str) -> bool:
        """Mark a subscription as dropped, so that no handle recreates it; return whether it was recorded."""
        name = subscription_name(pattern, group)
        if not await self._connection.send("HEXISTS", self._names.subscriptions, name):
            return False
        self._connection.send("SADD", self._names.dropped, name)
        return bool(await self._connection.send("HDEL", self._names.subscriptions, name))

    async def dropped(self, pattern: str, group: str) -> bool:
        """Say whether a subscription was dropped and not made again."""
        name = subscription_name(pattern, group)
        return bool(await self._connection.send("SISMEMBER", self._names.dropped, name))

    async def retain(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """Record how long to keep messages, in seconds by pattern; return the longest of all callers."""
        flat = [part for pattern, s in wanted.items() for part in (pattern, math.ceil(s * 1000))]
        args = (round(RETAIN_TTL * 1000), *flat)
        found = await self._connection.run(RETAIN, (self._names.retention,), args)
        longest: dict[str, float] = {}
        for pattern, millis in zip(found[::2], found[1::2], strict=True):
            name, kept = _text(pattern), read_count(millis)
            if name is not None and kept is not None:
                longest[name] = max(kept / 1000, longest.get(name, 0.0))
        return longest

    async def trim(self, wanted: Mapping[str, float]) -> int:
        """Trim each stream that has a subscription by one piece; return how many entries were removed.

        Groups of other programs on a stream count too; programs that read it without a group do not. The keys
        are read before the subscriptions. A subscription that is missing here therefore registered later, and
        then finds all these keys, so its groups exist, or it begins after this trim.
        """
        retain = await self.retain(wanted)
        keys = await self.keys()
        subscriptions = await self.subscriptions()
        readers = PatternIndex((pattern, group_name(pattern, group)) for pattern, group, _ in subscriptions)
        retained = PatternIndex(retain.items())
        alike = defaultdict[tuple[Arg, ...], list[str]](list)
        for key in keys:
            if groups := readers.match(key):
                age = math.ceil(max(retained.match(key), default=0.0) * 1000)
                alike[age, _PIECE, *groups].append(self._names.stream(key))
        removed, failed = 0, list[ServerError]()
        for args, streams in alike.items():
            for first in range(0, len(streams), _CHUNK):
                removed += await self._trim_streams(streams[first : first + _CHUNK], args, failed)
        if failed:
            raise failed[0]
        return removed

    async def _trim_streams(
        self, streams: Sequence[str], args: Sequence[Arg], failed: list[ServerError]
    ) -> int:
        """Trim streams, in one call if few entries go; return how many entries were removed."""
        removed = 0
        while streams:
            try:
                count, done = await self._connection.run(TRIM, streams, args)
            except ServerError as error:  # another program has put something else there
                if len(streams) == 1:
                    failed.append(error)
                    return removed
                for stream in streams:
                    removed += await self._trim_streams([stream], args, failed)
                return removed
            removed, streams = removed + count, streams[done:]
        return removed

    async def status(self) -> list[SubscriptionStatus]:
        """Return the counts of all subscriptions, sorted by pattern and group."""
        sent: list[tuple[str, str, list[tuple[str, asyncio.Future[Any]]]]] = []
        keys = await self.keys()
        for pattern, group, start in await self.subscriptions():
            own = self.matching(pattern, keys)
            sent.append((pattern, group, [(key, self._count(pattern, group, start, key)) for key in own]))
        return [await self._sum(*subscription) for subscription in sent]

    async def take_tokens(self, name: str, rate: float, wanted: int) -> TokenGrant:
        """Grant tokens at a rate that all processes share, by the server's clock."""
        args = (rate, max(1.0, rate * BURST), wanted)
        granted, micros = await self._connection.run(TAKE_TOKENS, (self._names.rate(name),), args)
        return TokenGrant(granted, micros / 1_000_000)

    def _count(self, pattern: str, group: str, start: int, key: str) -> asyncio.Future[Any]:
        name = group_name(pattern, group)
        names = self._names
        keys = (names.stream(key), names.delayed(key, name), names.dead(key, name))
        return self._connection.run(COUNT, keys, (name, position_before(start)))

    async def _sum(
        self, pattern: str, group: str, replies: Sequence[tuple[str, asyncio.Future[Any]]]
    ) -> SubscriptionStatus:
        ready = in_flight = waiting = dead = 0
        oldest: list[float] = []
        due: list[float] = []
        for key, reply in replies:
            try:
                lag, last, pending, released, delayed, dead_letters, first, first_due = await reply
                ready += released + (lag if lag >= 0 else await self._count_after(key, last))
            except ServerError as error:  # another program has put something else there
                _log.warning("stream `%s` is not counted: %s", self._names.stream(key), error)
                continue
            in_flight += max(0, pending - released - delayed)
            waiting += delayed
            dead += dead_letters
            if first:
                oldest.append(accepted_at(first))
            if first_due:
                due.append(float(first_due) / 1000)
        ends = min(oldest, default=None), min(due, default=None)
        return SubscriptionStatus(pattern, group, ready, in_flight, waiting, dead, *ends)

    async def _count_after(self, key: str, last: bytes) -> int:
        """Count the entries after one: Redis cannot after deletions, or when a group began midway."""
        total, first = 0, b"(" + last
        while first:
            count, first = await self._connection.run(COUNT_AFTER, (self._names.stream(key),), (first,))
            total += count
        return total


class Registrations:
    """Keeps the subscriptions of this process registered.

    Each has its start, in milliseconds since the epoch.
    """

    def __init__(self, connection: Connection, names: Names, registry: Registry) -> None:
        self._connection, self._names, self._registry = connection, names, registry
        self._starts: dict[tuple[str, str], int] = {}

    def add(self, pattern: str, group: str, start: int) -> None:
        """Keep a subscription registered."""
        self._starts[pattern, group] = start

    def remove(self, pattern: str, group: str) -> None:
        """Keep a subscription registered no longer: the last handle on it was closed."""
        self._starts.pop((pattern, group), None)

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            with suppress(BackendError):  # the next fetch raises it
                await self.check()

    async def check(self) -> None:
        """Register again what the server lost, with the keys that these subscriptions name."""
        restored: list[str] = []
        keys = (self._names.subscriptions, self._names.dropped)
        for starts in _chunks(self._starts):
            named = [subscription_name(*subscription) for subscription in starts]
            args = [arg for pair in zip(named, starts.values(), strict=True) for arg in pair]
            restored += [named[at] for at in await self._connection.run(RESTORE, keys, args)]
            if exact := [pattern for pattern, _ in starts if not is_wild(pattern)]:
                await self._registry.add_keys(exact)
        if restored:
            more = f" and {len(restored) - _NAMED} more" if len(restored) > _NAMED else ""
            _log.warning(
                "the server lost the registration of %s%s, which is made again; "
                "nothing was trimmed meanwhile, and no message was lost by it",
                ", ".join(f"`{name}`" for name in restored[:_NAMED]),
                more,
            )


def _chunks(starts: Mapping[tuple[str, str], int]) -> Iterator[dict[tuple[str, str], int]]:
    left = iter(tuple(starts.items()))
    while chunk := dict(islice(left, _CHECKED)):
        yield chunk


def _text(name: bytes) -> str | None:
    """Return a name as text, None if it is none."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None
