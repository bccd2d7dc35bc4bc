"""Pipelined reads: what they bring is delivered, released or recovered."""

from __future__ import annotations

import asyncio
import time

import pytest

from abe_router.backends.redis import RedisBackend, notifier, pipelining, subscription
from abe_router.backends.redis.stream_state import PendingReason
from abe_router.errors import SubscriptionClosed
from tests.limits import HANG

from .deliveries import bodies

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
def stream(prefix):
    return prefix + KEY


async def with_pipelined_read(handle, client, stream):
    """Return a fetch that waits and has a pipelined read, which needs that it was woken last."""
    async with asyncio.timeout(HANG):
        while True:
            fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
            await asyncio.sleep(0.02)
            if pipelined(handle):
                return fetching
            await client.xadd(stream, {"data": "0"})
            assert bodies(await fetching) == [b"0"]


def pipelined(handle):
    return any(state.pipelined for state in handle.reader.streams.values())


async def interrupted(handle, fetching):
    handle.interrupt()
    assert not await fetching


async def test_a_pipelined_read_is_answered_with_the_first_message(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching = await with_pipelined_read(handle, redis_client, stream)
    reads = (await redis_client.info("commandstats"))["cmdstat_xreadgroup"]["calls"]
    await redis_client.xadd(stream, {"data": "1"})
    assert [(d.message.body, d.deliveries) for d in await fetching] == [(b"1", 1)]
    assert (await redis_client.info("commandstats"))["cmdstat_xreadgroup"]["calls"] == reads + 1


async def test_what_it_brings_to_a_closing_handle_is_released(
    redis_backend, redis_server, redis_client, prefix, stream
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await interrupted(handle, await with_pipelined_read(handle, redis_client, stream))
    await redis_client.xadd(stream, {"data": "1"})
    await handle.close()
    async with RedisBackend.from_url(redis_server.url, prefix=prefix) as other:
        (delivery,) = await (await other.subscribe(KEY, GROUP)).fetch(10, HANG)
    assert (delivery.message.body, delivery.deliveries) == (b"1", 1)


async def test_closing_ends_it_without_waiting_for_a_message(redis_backend, redis_client, stream, control):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching, began = await with_pipelined_read(handle, redis_client, stream), time.time()
    await handle.close()
    assert control.since(began) < notifier.BLOCK / 2
    with pytest.raises(SubscriptionClosed):
        await fetching
    assert not pipelined(handle)


async def test_a_fetch_that_does_not_wait_gets_its_answer_first(redis_backend, redis_client, stream, control):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await interrupted(handle, await with_pipelined_read(handle, redis_client, stream))
    began = time.time()
    assert not await handle.fetch(10, 0)
    assert control.since(began) < notifier.BLOCK / 2

    await interrupted(handle, await with_pipelined_read(handle, redis_client, stream))
    transport = handle._node.notifier._connection._protocol._transport
    transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    asyncio.get_running_loop().call_later(0.05, transport.resume_reading)
    assert bodies(await handle.fetch(10, 0)) == [b"1"]


async def test_what_it_brought_before_a_long_stall_is_released_at_once(
    redis_backend, redis_client, stream, monkeypatch
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await interrupted(handle, await with_pipelined_read(handle, redis_client, stream))
    monkeypatch.setattr(pipelining, "_usable_for", lambda source: 0.0)
    monkeypatch.setattr(subscription, "KEPT", 20.0)
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(HANG):
        while not await redis_client.xpending_range(stream, GROUP, "-", "+", 10, ":released"):
            await asyncio.sleep(0.01)


async def test_what_it_brought_in_a_lost_reply_is_recovered(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching = await with_pipelined_read(handle, redis_client, stream)
    protocol = handle._node.notifier._connection._protocol
    protocol._transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(HANG):
        while len(await redis_client.xpending_range(stream, GROUP, "-", "+", 10)) < 2:
            await asyncio.sleep(0.001)
        protocol.abort("the reply was cut off")
        (delivery,) = await fetching
    assert delivery.message.body == b"1"


@pytest.mark.parametrize("lost", [False, True], ids=["the reply comes", "the reply is lost"])
async def test_what_it_brought_is_not_recovered_while_the_reply_is_on_its_way(
    redis_backend, redis_client, stream, lost
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching, protocol = (
        await with_pipelined_read(handle, redis_client, stream),
        handle._node.notifier._connection._protocol,
    )
    protocol._transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(HANG):
        while len(await redis_client.xpending_range(stream, GROUP, "-", "+", 10)) < 2:
            await asyncio.sleep(0.001)
    # As happens some time after an earlier reply was lost.
    handle._pending.signal(PendingReason.REPLY_LOST, handle.reader.streams.values())
    for _ in range(5):  # more round trips than a recovery takes
        await handle._node.connection.send("PING")
    assert handle._under_way is None
    assert not fetching.done()

    if lost:
        protocol.abort("the reply was cut off")
    else:
        protocol._transport.resume_reading()
    assert [(d.message.body, d.deliveries) for d in await fetching] == [(b"1", 1)]
    assert not await handle.fetch(10, 0)
    assert not handle._pending.has(PendingReason.REPLY_LOST)


async def test_short_leases_have_no_pipelined_reads(redis_backend, redis_client, stream):
    """A lease must outlast the wait, and two thirds of it must be left for the handler."""
    handle = await redis_backend.subscribe(KEY, GROUP, lease=3 * notifier.BLOCK)
    fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
    await asyncio.sleep(0.02)
    await redis_client.xadd(stream, {"data": "0"})
    assert await fetching
    assert not await handle.fetch(10, 0.1)
    assert not pipelined(handle)
