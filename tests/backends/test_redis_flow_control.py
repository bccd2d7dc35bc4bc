"""Flow control: a read that is not admitted waits for its turn and gets it."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from abe_router.backend import ACKED
from abe_router.backends.redis import node
from abe_router.backends.redis.connection import FlowControl
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from tests.limits import HANG

KEYS = [f"orders.n{n}" for n in range(5)]


@pytest.fixture
def narrow(monkeypatch):
    """Admit one read at a time, whatever it may bring."""
    monkeypatch.setattr(node, "FlowControl", partial(FlowControl, 1))


async def backlogs(backend, count=3):
    """Return a handle for each key, with nothing pending, and append so many messages to each key."""
    handles = [await backend.subscribe(key, "billing") for key in KEYS]
    for handle in handles:
        assert not await handle.fetch(1, 0.0)
    await backend.append([new_message(key, b"%d" % n) for n in range(count) for key in KEYS])
    return handles


async def until_queued(handle):
    async with asyncio.timeout(HANG):
        while not handle._queued:
            await asyncio.sleep(0)


def protocol(backend):
    return backend._node.connection._protocol


async def test_reads_are_admitted_while_there_is_room_and_then_in_their_order():
    flow, sent, replies = FlowControl(100), [], [asyncio.Future() for _ in range(4)]

    def read(number):
        if flow.admits(partial(read, number)):
            flow.sent(60, replies[number])
            sent.append(number)

    for number in range(4):
        read(number)
    assert sent == [0, 1]
    replies[1].set_result("entries")
    await asyncio.sleep(0)
    assert sent == [0, 1, 2]
    replies[0].set_exception(BackendUnavailable("no reply"))
    await asyncio.sleep(0)
    assert sent == [0, 1, 2, 3]


async def test_every_handle_gets_its_own_messages(narrow, redis_backend):
    handles = await backlogs(redis_backend)

    async def drain(handle):
        came = []
        while len(came) < 3:
            found = await handle.fetch(1, 5.0)
            assert not await handle.settle([(delivery, ACKED) for delivery in found])
            came += found
        return [(delivery.message.key, delivery.message.body) for delivery in came]

    async with asyncio.timeout(HANG):
        drained = await asyncio.gather(*map(drain, handles))
    assert drained == [[(key, b"%d" % n) for n in range(3)] for key in KEYS]


async def test_a_fetch_that_is_queued_may_be_interrupted_and_repeated(narrow, redis_backend):
    first, second, *_ = await backlogs(redis_backend)
    protocol(redis_backend)._transport.pause_reading()
    reading, waiting = (asyncio.create_task(handle.fetch(10, 2 * HANG)) for handle in (first, second))
    await until_queued(second)
    second.interrupt()
    assert not await asyncio.wait_for(waiting, HANG)
    protocol(redis_backend)._transport.resume_reading()
    assert len(await reading) == 3
    assert len(await second.fetch(10, 5.0)) == 3


async def test_the_turn_of_a_cancelled_fetch_goes_to_the_next_one(narrow, redis_backend):
    first, second, third, *_ = await backlogs(redis_backend)
    protocol(redis_backend)._transport.pause_reading()
    reading, gone, waiting = (asyncio.create_task(handle.fetch(10, 5.0)) for handle in (first, second, third))
    await until_queued(third)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    protocol(redis_backend)._transport.resume_reading()
    assert len(await reading) == len(await waiting) == 3


async def test_a_lost_connection_gives_back_the_room(narrow, redis_backend):
    handles = await backlogs(redis_backend)
    protocol(redis_backend)._transport.pause_reading()
    fetches = [asyncio.create_task(handle.fetch(10, 5.0)) for handle in handles]
    await until_queued(handles[-1])
    protocol(redis_backend).abort("cut by the test")

    async def persist(handle, fetching):
        while True:
            try:
                if found := await fetching:
                    return len(found)
            except BackendUnavailable:
                await asyncio.sleep(0.01)
            fetching = asyncio.create_task(handle.fetch(10, 5.0))

    async with asyncio.timeout(HANG):
        assert await asyncio.gather(*map(persist, handles, fetches)) == [3] * len(KEYS)
