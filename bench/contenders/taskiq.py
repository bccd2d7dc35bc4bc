"""taskiq on Redis streams, acked after the handler ran, without parsing of parameters by pydantic."""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq import AsyncTaskiqDecoratedTask
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

from bench.contenders.role import Publisher, main
from bench.spec import GROUP, Spec

SPEC = Spec.received()

broker = RedisStreamBroker(
    SPEC.url,
    queue_name=SPEC.keys[0],
    consumer_group_name=GROUP,
    consumer_id="0",
    xread_count=500,
    unacknowledged_lock_timeout=30.0,
).with_serializer(ORJSONSerializer())

_check = SPEC.payloads.check


@broker.task
async def handle(payload: dict[str, Any]) -> None:
    _check(payload)
    await _handler(payload)


class TaskiqPublisher(Publisher):
    """`kiq` for one message and for many callers; it has no batches."""

    callers = 20  # more are slower, because each needs a connection

    def __init__(self, send: AsyncTaskiqDecoratedTask[Any, Any]) -> None:
        self._send = send

    async def one(self, key: str, payload: Any) -> None:
        _check(payload)
        await self._send.kiq(payload)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[TaskiqPublisher]:
    # The worker imports this module under this name; here it is `__main__`.
    send = broker.register_task(handle.original_func, task_name="bench.contenders.taskiq:handle")
    await broker.startup()
    yield TaskiqPublisher(send)
    await broker.shutdown()


def work(spec: Spec) -> None:
    at_once = spec.concurrency if spec.handling == "sleep" else 10
    options = {
        "--workers": "1",
        "--ack-type": "when_executed",
        "--max-async-tasks": str(at_once),
        "--max-prefetch": "500",
        "--log-level": "WARNING",
    }
    pairs = [text for pair in options.items() for text in pair]
    program = [sys.executable, "-m", "taskiq", "worker", f"{__spec__.name}:broker", "--no-parse", *pairs]
    os.execv(sys.executable, program)


if __name__ == "__main__":
    main(connect, work)
else:
    from bench.handler import COROUTINES

    _handler = COROUTINES[SPEC.handling]
