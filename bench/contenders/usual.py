"""A typical hand-written loop: reads ten messages, acks each one, checks with jsonschema."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import jsonschema
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bench.contenders.role import Publisher, main, run
from bench.spec import GROUP, Spec


class UsualPublisher(Publisher):
    """One awaited XADD per message."""

    callers = 20  # more are slower

    def __init__(self, client: Redis, spec: Spec) -> None:
        schema = spec.payloads.schema
        self._client = client
        self._validator = jsonschema.validators.validator_for(schema)(schema)

    async def one(self, key: str, payload: Any) -> None:
        self._validator.validate(payload)
        await self._client.xadd(key, {"b": json.dumps(payload)})


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[UsualPublisher]:
    async with Redis.from_url(spec.url) as client:
        yield UsualPublisher(client, spec)


async def _consume(spec: Spec) -> None:
    from bench.handler import COROUTINES

    handler, schema, name = COROUTINES[spec.handling], spec.payloads.schema, str(os.getpid())
    validator = jsonschema.validators.validator_for(schema)(schema)
    (key,) = spec.keys
    async with Redis.from_url(spec.url, socket_timeout=None) as client:
        with suppress(ResponseError):  # another worker has created it
            await client.xgroup_create(key, GROUP, id="0", mkstream=True)
        while True:
            reply: Any = await client.xreadgroup(GROUP, name, {key: ">"}, count=10, block=2000)
            for _, entries in reply:
                for entry, fields in entries:
                    payload = json.loads(fields[b"b"])
                    if validator.is_valid(payload):
                        await handler(payload)
                    await client.xack(key, GROUP, entry)


def work(spec: Spec) -> None:
    run(_consume(spec), spec)


if __name__ == "__main__":
    main(connect, work)
