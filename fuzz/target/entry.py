"""Damaged data on a Redis server: entries of other programs, and keys of ours with odd values."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import redis

from abe_router.backends.redis import RedisBackend
from fuzz.corpus import Corpus
from fuzz.target.redis_target import RedisTarget
from fuzz.target.row import fill, use
from fuzz.target.target import Input

_VALUES = (
    *(
        b"",
        b"x",
        b"0",
        b"-1",
        b"nan",
        b"inf",
        b"1e300",
        b"9" * 25,
        b"\xff\xfe",
        b"{}",
        b"[1]",
        b"null",
        b"1-0",
    ),
    *(b'{"abe-hops":5}', b'{"abe-hops":"' + b"9" * 3000 + b'"}', b'{"x":' * 3000, b"[" * 3000, b"a" * 70_000),
    *(b"9999999999999999-0", b"\x1b[2J\r\n", b"odd", b"even", b":", b"/", b"\x00"),
)
_FIELDS = (b"data", b"id", b"at", b"headers", b"__data__", b"dead_letter", b"x", b"\xff")


class EntryTarget(RedisTarget):
    """Adds odd entries, and overwrites parts of what is stored about the key `odd` and its groups."""

    name = "entry"
    about = "odd entries and damaged keys of Redis give documented errors; the next message is handled"
    short = 20
    seconds = 6.0

    def open(self, folder: Path) -> None:
        """Start a server, and connect a client to it."""
        super().open(folder)
        self._client = redis.Redis.from_url(self.server.url)

    def close(self) -> None:
        """End both."""
        self._client.close()
        super().close()

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return entries for the stream, and damages: which key, which part of it, and the value."""
        entries = [
            [random.choice((*_FIELDS, *_FIELDS, random.choice(_VALUES))), random.choice(_VALUES)]
            for _ in range(random.randrange(4))
        ]
        damages = [
            [random.randrange(40), random.randrange(6), random.choice(_VALUES)]
            for _ in range(random.choice((0, 1, 1, 2)))
        ]
        return [entries, damages]

    def check(self, given: Input) -> None:
        """Damage what `fill` has stored; then use all of it."""
        entries, damages = given
        self._client.flushall()
        asyncio.run(self._fill())
        if entries:
            self._client.xadd("odd", dict(map(tuple, entries)))
        # A key that is gone or of another type may take what its route needs with it.
        usable = all(part > 1 for _, part, _ in damages)
        for number, part, value in damages:
            # Keys that concern every subscription are left alone: without them nothing works, by design.
            keys = sorted(key for key in self._client.scan_iter() if b"odd" in key)
            self._damage(keys[number % len(keys)], part, value)
        asyncio.run(use(RedisBackend.from_url(self.server.url), peeks=False, usable=usable))

    async def _fill(self) -> None:
        async with RedisBackend.from_url(self.server.url) as backend:
            await fill(backend)

    def _damage(self, key: bytes, part: int, value: bytes) -> None:
        client = self._client
        kind = client.type(key)
        if part == 0:
            client.delete(key)
        elif part == 1:
            client.set(key, value)
        elif kind == b"hash":
            names: Sequence[Any] = sorted(client.hkeys(key))
            client.hset(key, names[part % len(names)] if names and part < 4 else value, value)
        elif kind == b"zset":
            client.zadd(key, {value: float(part)})
        elif kind == b"stream":
            client.xadd(key, {_FIELDS[part]: value})
        elif kind == b"set":
            client.sadd(key, value)
        else:
            client.set(key, value)
