"""streaq on Redis streams: one worker on uvloop, orjson instead of pickle, and no stored results."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from streaq import Worker

from bench.contenders.role import Item, Publisher, main, run
from bench.spec import Spec


def _worker(spec: Spec) -> tuple[Worker[Any], Any]:
    """Return a worker, and its task."""
    # Its client decodes what it reads, so the serializer returns text.
    worker: Worker[Any] = Worker(
        redis_url=spec.url,
        concurrency=spec.concurrency,
        prefetch=500,
        serializer=lambda value: orjson.dumps(value).decode(),
        deserializer=orjson.loads,
    )
    check = spec.payloads.check

    @worker.task(name="handle", ttl=0, silent=True)
    async def handle(payload: Any) -> None:
        from bench.handler import COROUTINES

        check(payload)
        await COROUTINES[spec.handling](payload)

    return worker, handle


class StreaqPublisher(Publisher):
    """`enqueue` for one message and for many callers, and `enqueue_many` for a batch."""

    callers = 20  # more are slower, because each needs a connection

    def __init__(self, worker: Worker[Any], task: Any, spec: Spec) -> None:
        self._worker, self._task, self._check = worker, task, spec.payloads.check

    async def one(self, key: str, payload: Any) -> None:
        self._check(payload)
        await self._task.enqueue(payload)

    async def batch(self, items: Sequence[Item]) -> None:
        for _, payload in items:
            self._check(payload)
        await self._worker.enqueue_many([self._task.enqueue(payload) for _, payload in items])


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[StreaqPublisher]:
    worker, task = _worker(spec)
    async with worker:
        yield StreaqPublisher(worker, task, spec)


def work(spec: Spec) -> None:
    logging.getLogger("streaq").setLevel(logging.WARNING)
    worker, _ = _worker(spec)
    run(worker.run_async(), spec)


if __name__ == "__main__":
    main(connect, work)
