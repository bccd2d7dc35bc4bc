"""The wait for all streams: whoever comes to rest while it lasts is waited for soon."""

from __future__ import annotations

import asyncio

from abe_router.backends.redis.names import Names
from abe_router.backends.redis.source import Agenda, Source
from abe_router.backends.redis.waker import BLOCK

GROUP = "billing"


async def test_it_is_interrupted_though_the_other_connection_was_closing_just_then(
    redis_backend, redis_client, prefix
):
    handle = await redis_backend.subscribe("orders.created", GROUP)
    fetching = asyncio.create_task(handle.fetch(1, 30.0))
    waker, wire, woken = handle._waker, redis_backend._session.line._wire, asyncio.Event()
    newcomer = Source(Names(prefix), "orders.paid", GROUP, "me", 30.0, "0-0", Agenda(woken.set))
    async with asyncio.timeout(10):
        while not waker._blocked or waker._poke:
            await asyncio.sleep(0.01)
    waker.rest(newcomer)
    # Between this and the end of the connection comes what the newcomer set off.
    asyncio.get_running_loop().call_soon(wire.abort, "cut by the test")
    await redis_client.xadd(newcomer.stream, {"data": "1"})
    async with asyncio.timeout(BLOCK / 2):
        await woken.wait()
    handle.interrupt()
    assert not await fetching
