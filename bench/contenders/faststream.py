"""FastStream on Redis streams, without argument parsing by pydantic, which is its default.

It reads at most 500 entries at a time. A second subscriber claims the messages of crashed consumers, which
at-least-once delivery needs.
"""

# Its packages are not installed in the environment in which mypy runs.
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
    """`publish` for one message and for many callers, and its Redis pipeline for a batch."""

    callers = 50  # more are slower, because each needs a connection

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
    """Create the groups at the beginning of the streams; FastStream creates them at the end."""
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

    # More workers only help when the handler waits.
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
