"""The baseline: the shortest and fastest hand-written loop over redis-py.

It reads 500 at a time, decodes with msgspec, checks, awaits the handler and acks the batch in one command.
A batch is published by one Lua call. It has no retries, timeouts, leases, fencing, dead letters or reload.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from bench.contenders.role import Item, Publisher, main, run
from bench.spec import GROUP, Spec

COUNT = 500
_APPEND = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'b', ARGV[i]) end"

_encode, _decode = msgspec.json.encode, msgspec.json.decode


def _client(spec: Spec) -> Redis:
    return Redis.from_url(spec.url, protocol=3, retry=Retry(NoBackoff(), 0), socket_timeout=None)


class LoopPublisher(Publisher):
    """XADD for one message, a pipeline for many, and a script for a batch of one key."""

    def __init__(self, client: Redis, spec: Spec) -> None:
        self._client, self._check = client, spec.payloads.check
        self._append = client.register_script(_APPEND)

    async def one(self, key: str, payload: Any) -> None:
        self._check(payload)
        await self._client.xadd(key, {"b": _encode(payload)})

    async def pipeline(self, items: Sequence[Item]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, payload in items:
            self._check(payload)
            pipeline.xadd(key, {"b": _encode(payload)})
        await pipeline.execute()

    async def batch(self, items: Sequence[Item]) -> None:
        bodies: dict[str, list[bytes]] = {}
        for key, payload in items:
            self._check(payload)
            bodies.setdefault(key, []).append(_encode(payload))
        for key, those in bodies.items():
            await self._append(keys=[key], args=those)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[LoopPublisher]:
    async with _client(spec) as client:
        yield LoopPublisher(client, spec)


async def _consume(spec: Spec) -> None:
    from bench.handler import COROUTINES

    handler, is_valid = COROUTINES[spec.handling], spec.payloads.is_valid
    async with _client(spec) as client:
        for key in spec.keys:
            with suppress(ResponseError):  # another worker has created it
                await client.xgroup_create(key, GROUP, id="0", mkstream=True)
        await asyncio.gather(*(_drain(client, key, handler, is_valid, spec) for key in spec.keys))


async def _drain(
    client: Redis,
    key: str,
    handler: Callable[[Any], Awaitable[None]],
    is_valid: Callable[[Any], bool],
    spec: Spec,
) -> None:
    name = str(os.getpid())
    while True:
        reply: Any = await client.xreadgroup(GROUP, name, {key: ">"}, count=COUNT, block=5000)
        if not reply:
            continue
        entries = deque(reply[key.encode()][0])
        ids = [entry[0] for entry in entries]

        async def handle_all(entries: deque[Any] = entries) -> None:
            while entries:
                _, fields = entries.popleft()
                payload = _decode(fields[b"b"])
                if is_valid(payload):
                    await handler(payload)

        if spec.handling == "sleep":
            await asyncio.gather(*(handle_all() for _ in range(spec.concurrency)))
        else:
            await handle_all()
        await client.xack(key, GROUP, *ids)


def work(spec: Spec) -> None:
    run(_consume(spec), spec)


if __name__ == "__main__":
    main(connect, work)
