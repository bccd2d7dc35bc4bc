"""FastStream on Redis streams, without the argument parsing by pydantic that it does by default.

It reads 500 at a time instead of everything there is, and a second subscriber claims what a crashed
consumer left behind, without which nothing is delivered at least once.
"""

# It runs where these packages are, which is not where types are checked.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import redis
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bench.contenders.role import Item, Publisher, main, run
from bench.spec import GROUP, Spec


def make_broker(spec: Spec) -> RedisBroker:
    return RedisBroker(spec.url, apply_types=False, logger=None)


class FastStreamPublisher(Publisher):
    """`publish` for one and for many at once, and its Redis pipeline for a batch."""

    callers = 50  # more are slower, for each needs a connection of its own

    def __init__(self, broker: RedisBroker, client: Redis, spec: Spec) -> None:
        self._broker, self._client, self._check = broker, client, spec.payloads.check

    async def one(self, key: str, payload: Any) -> None:
        self._check(payload)
        await self._broker.publish(payload, stream=key)

    async def batch(self, items: Sequence[Item]) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            for key, payload in items:
                self._check(payload)
                await self._broker.publish(payload, stream=key, pipeline=pipeline)
            await pipeline.execute()


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[FastStreamPublisher]:
    async with make_broker(spec) as broker, Redis.from_url(spec.url) as client:
        yield FastStreamPublisher(broker, client, spec)


def make_groups(spec: Spec) -> None:
    """Make the groups at the beginning of the streams: FastStream would make them at their end."""
    with redis.Redis.from_url(spec.url) as client:
        for key in spec.keys:
            with suppress(ResponseError):
                client.xgroup_create(key, GROUP, id="0", mkstream=True)


def work(spec: Spec) -> None:
    from bench.handler import COROUTINES

    make_groups(spec)
    handler, check = COROUTINES[spec.handling], spec.payloads.check
    broker = make_broker(spec)

    async def handle(payload: Any) -> None:
        check(payload)
        await handler(payload)

    # Several at once cost more than they bring where the handler never waits.
    workers = {"max_workers": spec.concurrency} if spec.handling == "sleep" else {}
    for key in spec.keys:
        name = {"group": GROUP, "consumer": str(os.getpid())}
        fresh = StreamSub(key, **name, max_records=500)
        left = StreamSub(key, **name, min_idle_time=30_000, polling_interval=1_000)
        broker.subscriber(stream=fresh, ack_policy=AckPolicy.NACK_ON_ERROR, **workers)(handle)
        broker.subscriber(stream=left, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    run(FastStream(broker, logger=None).run(), spec)


if __name__ == "__main__":
    main(connect, work)
