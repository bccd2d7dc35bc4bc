"""The reader recovers what the server delivered in replies that were lost."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis.scripts import RECOVER
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message

from .deliveries import bodies, take

KEYS, GROUP = ["orders.created", "orders.paid"], "billing"


async def lose_the_replies(backend, handle, client, prefix):
    """Let the server deliver one message of each key in replies that never come."""
    await backend.append([new_message(key, key.encode()) for key in KEYS])
    protocol = backend._node.connection._protocol
    protocol._transport.pause_reading()
    fetching = asyncio.create_task(handle.fetch(10, 10.0))
    async with asyncio.timeout(10):
        for key in KEYS:
            while not await client.xpending_range(prefix + key, f"{handle.pattern}/{GROUP}", "-", "+", 10):
                await asyncio.sleep(0.001)
    protocol.abort("cut by the test")
    with pytest.raises(BackendUnavailable):
        await fetching


async def test_recovery_is_complete_although_the_connection_breaks_again_meanwhile(
    redis_backend, redis_client, prefix, monkeypatch
):
    handle = await redis_backend.subscribe("orders.*", GROUP)
    redis_backend._node.discovery.record(KEYS)
    assert not await handle.fetch(10, 0)
    await lose_the_replies(redis_backend, handle, redis_client, prefix)
    connection = redis_backend._node.connection
    run = connection.run

    def break_after_the_first_reply(script, keys, args=()):
        answer = run(script, keys, args)
        if script is RECOVER:
            monkeypatch.setattr(connection, "run", run)
            answer.add_done_callback(lambda _: connection._protocol.abort("cut by the test again"))
        return answer

    monkeypatch.setattr(connection, "run", break_after_the_first_reply)
    came = await take(handle, len(KEYS))
    assert sorted(bodies(came)) == [key.encode() for key in KEYS]
    assert [delivery.deliveries for delivery in came] == [1, 1]
