"""Backend.consume: payloads for a loop of one's own, acked when the next one is asked for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from abe_router.backend import payloads
from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message


@pytest.fixture
def backend(each_backend):
    return each_backend


async def counts(backend):
    (status,) = await backend.status()
    return status.ready, status.in_flight, status.dead


async def test_asking_for_the_next_acks_the_one_before(backend):
    for number in (1, 2):
        await backend.publish("a", number)
    async with aclosing(backend.consume(group="g")) as stream:
        assert await anext(stream) == 1
        assert await counts(backend) == (1, 1, 0)
        assert await anext(stream) == 2
        assert await counts(backend) == (0, 1, 0)


async def test_the_one_in_hand_comes_back_when_the_loop_is_left(backend):
    for number in (1, 2):
        await backend.publish("a", number)
    for expected in ([1, 2], [2]):
        got = []
        async with aclosing(backend.consume(group="g")) as stream:
            async for number in stream:
                got.append(number)
                if number == 2:
                    break
        assert got == expected
    assert await counts(backend) == (1, 0, 0)


async def test_the_one_in_hand_comes_back_when_its_task_is_cancelled(backend):
    began = asyncio.Event()

    async def work():
        async with aclosing(backend.consume(group="g")) as stream:
            async for _ in stream:
                began.set()
                await asyncio.Event().wait()

    await backend.publish("a", 1)
    working = asyncio.create_task(work())
    await began.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await counts(backend) == (1, 0, 0)


async def test_it_waits_for_what_comes_later_and_a_key_narrows_it(backend):
    async with aclosing(backend.consume(group="g", key="orders.*")) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await backend.publish("payments.settled", 1)
        await backend.publish("orders.created", 2)
        assert await waiting == 2


async def test_what_is_not_json_is_dead_lettered_and_the_loop_goes_on(backend):
    await backend.append([Message("m1", "a", b"{")])
    await backend.publish("a", "fine")
    async with aclosing(backend.consume()) as stream:
        assert await anext(stream) == "fine"
    (letter,) = await backend.dead_letters("#", "default")
    assert (letter.message.id, letter.reason.kind, letter.route) == ("m1", "malformed", "#/default")


async def test_what_was_handed_out_too_often_is_not_handed_out_again(backend, monkeypatch):
    monkeypatch.setattr(payloads, "MAX_DELIVERIES", 0)
    await backend.publish("a", "poison")
    async with aclosing(backend.consume()) as stream:
        waiting = asyncio.create_task(anext(stream))
        while not (letters := await backend.dead_letters("#", "default")):
            await asyncio.sleep(0.01)
        assert letters[0].reason.kind == "max_deliveries"
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_a_slow_loop_keeps_its_lease(monkeypatch):
    now = 0.0
    backend = MemoryBackend(clock=lambda: now)
    extended = asyncio.Event()
    real = payloads._Hold.beat
    monkeypatch.setattr(payloads._Hold, "beat", lambda self, seconds: real(self, 0.01))
    subscribe = backend.subscribe

    async def watched(*args, **options):
        subscription = await subscribe(*args, **options)
        extend = subscription.extend

        async def noted(deliveries):
            extended.set()
            return await extend(deliveries)

        subscription.extend = noted
        return subscription

    backend.subscribe = watched
    await backend.publish("a", 1)
    async with aclosing(backend.consume()) as stream:
        assert await anext(stream) == 1
        for _ in range(3):
            now += 25  # of a lease of 30 seconds
            extended.clear()
            await extended.wait()
        other = await subscribe("#", "default")
        assert await other.fetch(1, 0) == []


async def test_a_backend_that_goes_away_is_waited_for(caplog):
    backend = MemoryBackend()
    subscribe, failures = backend.subscribe, [BackendUnavailable("no connection")] * 2

    async def flaky(*args, **options):
        subscription = await subscribe(*args, **options)
        fetch, settle = subscription.fetch, subscription.settle

        async def fetched(limit, wait):
            if len(failures) == 2:
                raise failures.pop()
            return await fetch(limit, wait)

        async def settled(settlements):
            if len(failures) == 1:
                raise failures.pop()
            return await settle(settlements)

        subscription.fetch, subscription.settle = fetched, settled
        return subscription

    backend.subscribe = flaky
    for number in (1, 2):
        await backend.publish("a", number)
    async with aclosing(backend.consume()) as stream:
        assert [await anext(stream), await anext(stream)] == [1, 2]
    assert caplog.text.count("no connection; tried again") == 2


async def test_a_backend_that_was_never_there_is_an_error():
    with pytest.raises(BackendUnavailable):
        async with aclosing(make_backend("redis://127.0.0.1:1/0").consume()) as stream:
            await anext(stream)
