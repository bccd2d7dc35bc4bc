"""Reads behind the wait of the waker: what they bring is handed out, handed back or adopted."""

from __future__ import annotations

import asyncio
import time

import pytest

from abe_router.backends.redis import RedisBackend, follow_ups, waker

from .hands import bodies

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
def stream(prefix):
    return prefix + KEY


async def a_read_follows(handle, client, stream):
    """Return a fetch that waits, with a read behind the wait, once it is what was woken last."""
    async with asyncio.timeout(10):
        while True:
            fetching = asyncio.create_task(handle.fetch(10, 10.0))
            await asyncio.sleep(0.02)
            if handle._agenda.followed:
                return fetching
            await client.xadd(stream, {"data": "0"})
            assert bodies(await fetching) == [b"0"]


async def given_up(handle, fetching):
    handle.interrupt()
    assert not await fetching


async def test_it_is_answered_as_soon_as_there_is_something(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching = await a_read_follows(handle, redis_client, stream)
    reads = (await redis_client.info("commandstats"))["cmdstat_xreadgroup"]["calls"]
    await redis_client.xadd(stream, {"data": "1"})
    assert [(d.message.body, d.deliveries) for d in await fetching] == [(b"1", 1)]
    assert (await redis_client.info("commandstats"))["cmdstat_xreadgroup"]["calls"] == reads + 1


async def test_what_it_brings_to_a_handle_that_closes_is_handed_back(
    redis_backend, redis_server, redis_client, prefix, stream
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await given_up(handle, await a_read_follows(handle, redis_client, stream))
    await redis_client.xadd(stream, {"data": "1"})
    await handle.close()
    async with RedisBackend.from_url(redis_server.url, prefix=prefix) as other:
        (delivery,) = await (await other.subscribe(KEY, GROUP)).fetch(10, 5.0)
    assert (delivery.message.body, delivery.deliveries) == (b"1", 1)


async def test_closing_ends_it_and_does_not_wait_for_a_message(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching, began = await a_read_follows(handle, redis_client, stream), time.monotonic()
    await handle.close()
    assert time.monotonic() - began < waker.BLOCK / 5
    assert not await fetching
    assert not handle._agenda.followed


async def test_a_fetch_that_does_not_wait_has_it_answered_first(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await given_up(handle, await a_read_follows(handle, redis_client, stream))
    began = time.monotonic()
    assert not await handle.fetch(10, 0)
    assert time.monotonic() - began < waker.BLOCK / 5

    await given_up(handle, await a_read_follows(handle, redis_client, stream))
    transport = handle._waker._line._wire._transport
    transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    asyncio.get_running_loop().call_later(0.05, transport.resume_reading)
    assert bodies(await handle.fetch(10, 0)) == [b"1"]


async def test_what_it_brought_before_the_process_stood_still_is_handed_back_at_once(
    redis_backend, redis_client, stream, monkeypatch
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await given_up(handle, await a_read_follows(handle, redis_client, stream))
    monkeypatch.setattr(follow_ups, "_good_for", lambda source: 0.0)
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(follow_ups.KEPT / 2):
        while not await redis_client.xpending_range(stream, GROUP, "-", "+", 10, ":released"):
            await asyncio.sleep(0.01)


async def test_what_it_brought_in_an_answer_that_was_lost_is_adopted(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching = await a_read_follows(handle, redis_client, stream)
    wire = handle._waker._line._wire
    wire._transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(5):
        while len(await redis_client.xpending_range(stream, GROUP, "-", "+", 10)) < 2:
            await asyncio.sleep(0.001)
        wire.abort("the answer is lost")
        (delivery,) = await fetching
    assert delivery.message.body == b"1"


@pytest.mark.parametrize("lost", [False, True], ids=["and comes", "and is lost"])
async def test_what_it_brought_is_not_adopted_while_it_is_on_its_way(
    redis_backend, redis_client, stream, lost
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    fetching, wire = await a_read_follows(handle, redis_client, stream), handle._waker._line._wire
    wire._transport.pause_reading()
    await redis_client.xadd(stream, {"data": "1"})
    async with asyncio.timeout(5):
        while len(await redis_client.xpending_range(stream, GROUP, "-", "+", 10)) < 2:
            await asyncio.sleep(0.001)
    # As some time after an earlier one was lost.
    handle._agenda.mark(handle._agenda.adopt, handle._sources.values())
    for _ in range(5):  # more round trips than it takes to adopt
        await handle._line.send("PING")
    assert handle._under_way is None
    assert not fetching.done()

    if lost:
        wire.abort("the answer is lost")
    else:
        wire._transport.resume_reading()
    assert [(d.message.body, d.deliveries) for d in await fetching] == [(b"1", 1)]
    assert not await handle.fetch(10, 0)
    assert not handle._agenda.adopt


async def test_nothing_follows_where_leases_are_short(redis_backend, redis_client, stream):
    """A lease must outlast the wait, and leave two thirds of itself to whoever gets the message."""
    handle = await redis_backend.subscribe(KEY, GROUP, lease=3 * waker.BLOCK)
    fetching = asyncio.create_task(handle.fetch(10, 10.0))
    await asyncio.sleep(0.02)
    await redis_client.xadd(stream, {"data": "0"})
    assert await fetching
    assert not await handle.fetch(10, 0.1)
    assert not handle._agenda.followed
