"""The notifier waits for streams that come while it waits for others."""

from __future__ import annotations

import asyncio

from abe_router.backends.redis.names import Names
from abe_router.backends.redis.notifier import BLOCK
from abe_router.backends.redis.stream_state import PendingWork, StreamState
from tests.limits import HANG

GROUP = "billing"


async def test_a_wait_is_interrupted_although_the_other_connection_closes_at_that_moment(
    redis_backend, redis_client, prefix
):
    handle = await redis_backend.subscribe("orders.created", GROUP)
    fetching = asyncio.create_task(handle.fetch(1, 2 * HANG))
    node, woken = redis_backend._node, asyncio.Event()
    newcomer = StreamState(Names(prefix), "orders.paid", GROUP, "me", 30.0, "0-0", PendingWork(woken.set))
    async with asyncio.timeout(HANG):
        while not node.notifier._blocked or node.notifier._interrupt:
            await asyncio.sleep(0.01)
    node.notifier.wait(newcomer)
    # The interrupt is sent between this call and the end of the connection.
    asyncio.get_running_loop().call_soon(node.connection._protocol.abort, "cut by the test")
    await redis_client.xadd(newcomer.stream, {"data": "1"})
    async with asyncio.timeout(BLOCK / 2):
        await woken.wait()
    handle.interrupt()
    assert not await fetching


async def test_many_waiting_streams_let_newcomers_wait_longer_than_their_number(redis_backend, prefix):
    await redis_backend.subscribe("orders.created", GROUP)
    notifier, names = redis_backend._node.notifier, Names(prefix)
    streams = [
        StreamState(names, f"orders.k{n}", GROUP, "me", 30.0, "0-0", PendingWork(lambda: None))
        for n in range(5001)
    ]
    pauses = []
    for count in (50, 5000):
        for stream in streams[:count]:
            notifier.wait(stream)
        async with asyncio.timeout(HANG):
            while not notifier._blocked or notifier._interrupt or len(notifier._waiters) < count:
                await asyncio.sleep(0.01)
        notifier.wait(streams[-1])
        pauses.append(notifier._interrupt.when() - notifier._armed_at)
        notifier.cancel(streams[-1])
    assert pauses[0] < 0.002
    assert pauses[1] > 2 * 100 * pauses[0]


async def test_a_stream_of_a_busy_handle_interrupts_the_xread_later_than_one_of_an_idle_handle(
    redis_backend, prefix
):
    await redis_backend.subscribe("orders.created", GROUP)
    notifier, names = redis_backend._node.notifier, Names(prefix)
    busy, idle, *others = [
        StreamState(names, f"orders.k{n}", GROUP, "me", 30.0, "0-0", PendingWork(lambda: None))
        for n in range(500)
    ]
    for stream in others:
        notifier.wait(stream)
    async with asyncio.timeout(HANG):
        while not notifier._blocked or notifier._interrupt or len(notifier._waiters) < len(others):
            await asyncio.sleep(0.01)
    pauses = []
    for stream, patient in ((busy, True), (idle, False), (busy, True)):
        notifier.wait(stream, patient=patient)
        pauses.append(notifier._interrupt_at - notifier._armed_at)
    assert pauses[0] > 9 * pauses[1]
    assert pauses[2] == pauses[1]
