"""What Python alone costs: decodes, checks and awaits the handler for bodies that are in memory already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, islice

import msgspec

from bench.contenders.role import Publisher, main, run
from bench.spec import Spec


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[Publisher]:
    yield Publisher()


async def _consume(spec: Spec) -> None:
    from bench.handler import COROUTINES

    handler, is_valid = COROUTINES[spec.handling], spec.payloads.is_valid
    bodies = list(map(msgspec.json.encode, spec.payloads.values))
    for body in islice(cycle(bodies), spec.count):
        payload = msgspec.json.decode(body)
        if is_valid(payload):
            await handler(payload)
    await asyncio.Event().wait()


def work(spec: Spec) -> None:
    run(_consume(spec), spec)


if __name__ == "__main__":
    main(connect, work)
