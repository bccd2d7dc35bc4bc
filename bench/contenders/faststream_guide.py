"""FastStream as in its guide: payloads are pydantic models, checked by the publisher and the consumer.

All other settings are defaults, except those that at-least-once delivery needs.
"""

# Its packages are not installed in the environment in which mypy runs.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel, ConfigDict, Field

from bench.contenders.faststream import make_groups
from bench.contenders.role import Publisher, main, run
from bench.spec import GROUP, Spec


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sku: str
    quantity: Annotated[int, Field(ge=1)]


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(pattern="^o-[0-9]+$")]
    customer: Annotated[str, Field(min_length=1)]
    total: Annotated[float, Field(ge=0)]
    currency: Literal["EUR", "USD", "GBP"]
    lines: Annotated[list[Line], Field(min_length=1)]
    sent: int


class GuidePublisher(Publisher):
    """`publish` of a model."""

    callers = 50  # more are slower, because each needs a connection

    def __init__(self, broker: RedisBroker) -> None:
        self._broker = broker

    async def one(self, key: str, payload: Any) -> None:
        await self._broker.publish(Order(**payload), stream=key)


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[GuidePublisher]:
    async with RedisBroker(spec.url) as broker:
        yield GuidePublisher(broker)


def work(spec: Spec) -> None:
    from bench.handler import COROUTINES

    make_groups(spec)
    handler = COROUTINES[spec.handling]
    broker = RedisBroker(spec.url)

    async def handle(order: Order) -> None:
        await handler({"sent": order.sent})

    for key in spec.keys:
        name = {"group": GROUP, "consumer": str(os.getpid())}
        left = StreamSub(key, **name, min_idle_time=30_000)
        broker.subscriber(stream=StreamSub(key, **name), ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
        broker.subscriber(stream=left, ack_policy=AckPolicy.NACK_ON_ERROR)(handle)
    run(FastStream(broker).run(), spec)


if __name__ == "__main__":
    main(connect, work)
