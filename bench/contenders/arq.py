"""arq on Redis: one worker on uvloop, orjson instead of pickle, and no stored results."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func

from bench.contenders.role import Publisher, main, run
from bench.spec import Spec

#: The default of half a second is the time between two looks at the queue.
POLL_DELAY = 0.001


class ArqPublisher(Publisher):
    """`enqueue_job` for one message and for many callers; it has no batches."""

    callers = 20  # more are slower, because each needs a connection

    def __init__(self, pool: ArqRedis, spec: Spec) -> None:
        self._pool, self._check = pool, spec.payloads.check

    async def one(self, key: str, payload: Any) -> None:
        self._check(payload)
        await self._pool.enqueue_job("handle", payload)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[ArqPublisher]:
    settings = RedisSettings.from_dsn(spec.url)
    pool = await create_pool(settings, job_serializer=orjson.dumps, job_deserializer=orjson.loads)
    yield ArqPublisher(pool, spec)
    await pool.aclose()


async def _consume(spec: Spec) -> None:
    from bench.handler import COROUTINES

    handler, check = COROUTINES[spec.handling], spec.payloads.check

    async def handle(_: dict[str, Any], payload: Any) -> None:
        check(payload)
        await handler(payload)

    worker = Worker(
        [func(handle, name="handle")],
        redis_settings=RedisSettings.from_dsn(spec.url),
        max_jobs=spec.concurrency,
        poll_delay=POLL_DELAY,
        keep_result=0,
        job_serializer=orjson.dumps,
        job_deserializer=orjson.loads,
    )
    await worker.async_run()


def work(spec: Spec) -> None:
    run(_consume(spec), spec)


if __name__ == "__main__":
    main(connect, work)
