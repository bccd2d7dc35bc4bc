"""saq on Redis: one worker on uvloop, orjson instead of json; a job is deleted when it is done."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from saq import Worker
from saq.queue.redis import RedisQueue

from bench.contenders.role import Publisher, main, run
from bench.spec import Spec


def _queue(spec: Spec) -> RedisQueue:
    return RedisQueue.from_url(spec.url, dump=orjson.dumps, load=orjson.loads)


class SaqPublisher(Publisher):
    """`enqueue` for one message and for many callers; it has no batches."""

    callers = 20  # as many as it runs at the same time

    def __init__(self, queue: RedisQueue, spec: Spec) -> None:
        self._queue, self._check = queue, spec.payloads.check

    async def one(self, key: str, payload: Any) -> None:
        self._check(payload)
        await self._queue.enqueue("handle", payload=payload, ttl=-1)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[SaqPublisher]:
    queue = _queue(spec)
    yield SaqPublisher(queue, spec)
    await queue.disconnect()


async def _consume(spec: Spec) -> None:
    from bench.handler import COROUTINES

    handler, check = COROUTINES[spec.handling], spec.payloads.check

    async def handle(_: dict[str, Any], *, payload: Any) -> None:
        check(payload)
        await handler(payload)

    await Worker(_queue(spec), [("handle", handle)], concurrency=spec.concurrency).start()


def work(spec: Spec) -> None:
    run(_consume(spec), spec)


if __name__ == "__main__":
    main(connect, work)
