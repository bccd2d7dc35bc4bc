"""What a fetch asked for, when the process stands still before a later fetch takes it."""

from __future__ import annotations

import asyncio
import time

from abe_router.backend import ACKED
from abe_router.backends.redis import RedisBackend
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import bodies

KEY, GROUP, LEASE = "orders.created", "billing", 1.0


async def _interrupted_read(handle, backend, number):
    """Publish, and interrupt a fetch that has asked for it; return what the fetch returned all the same."""
    await backend.append([new_message(KEY, b"%d" % number)])
    fetching = asyncio.create_task(handle.fetch(10, 0.0))
    while not (fetching.done() or handle._under_way):
        await asyncio.sleep(0)
    handle.interrupt()
    return await fetching


async def test_a_message_that_came_before_a_long_block_is_handed_out_with_a_new_lease(
    redis_server, redis_client, prefix, redis_backend
):
    """The caller counts the lease from its own fetch, and another handle may have it by now."""
    async with RedisBackend.from_url(redis_server.url, prefix=prefix) as publishing:
        handle = await redis_backend.subscribe(KEY, GROUP, lease=LEASE)
        for number in range(1000):
            early = await _interrupted_read(handle, publishing, number)
            if not early:
                break  # the answer is still on its way
            assert not await handle.settle([(each, ACKED) for each in early])
        time.sleep(LEASE)  # noqa: ASYNC251  the block of the loop is what is tested
        async with asyncio.timeout(HANG):
            while not (found := await handle.fetch(10, 5.0)):
                pass
        (pending,) = await redis_client.xpending_range(prefix + KEY, GROUP, "-", "+", 10)
        assert pending["time_since_delivered"] < LEASE * 1000 / 2
        assert bodies(found) == [b"%d" % number]
        assert not await handle.settle([(each, ACKED) for each in found])
