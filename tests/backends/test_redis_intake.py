"""What the server handed out in an answer that was lost is adopted, whatever else breaks."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis.scripts import ADOPT
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message

from .hands import bodies, take

KEYS, GROUP = ["orders.created", "orders.paid"], "billing"


async def lose_what_is_read(backend, handle, client, prefix):
    """Have the server hand out one message of each key in answers that never come."""
    await backend.append([new_message(key, key.encode()) for key in KEYS])
    wire = backend._session.line._wire
    wire._transport.pause_reading()
    fetching = asyncio.create_task(handle.fetch(10, 10.0))
    async with asyncio.timeout(10):
        for key in KEYS:
            while not await client.xpending_range(prefix + key, f"{handle.pattern}/{GROUP}", "-", "+", 10):
                await asyncio.sleep(0.001)
    wire.abort("cut by the test")
    with pytest.raises(BackendUnavailable):
        await fetching


async def test_it_is_handed_out_though_the_connection_breaks_again_before_all_was_looked_at(
    redis_backend, redis_client, prefix, monkeypatch
):
    handle = await redis_backend.subscribe("orders.*", GROUP)
    redis_backend._session.publisher.note(KEYS)
    assert not await handle.fetch(10, 0)
    await lose_what_is_read(redis_backend, handle, redis_client, prefix)
    line = redis_backend._session.line
    run = line.run

    def break_once_it_is_answered(script, keys, args=()):
        answer = run(script, keys, args)
        if script is ADOPT:
            monkeypatch.setattr(line, "run", run)
            answer.add_done_callback(lambda _: line._wire.abort("cut by the test again"))
        return answer

    monkeypatch.setattr(line, "run", break_once_it_is_answered)
    came = await take(handle, len(KEYS))
    assert sorted(bodies(came)) == [key.encode() for key in KEYS]
    assert [delivery.deliveries for delivery in came] == [1, 1]
