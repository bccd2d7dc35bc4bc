"""`consume` yields payloads for a loop of the caller's own, and acks each one when the next is asked for."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.compat import consume
from abe_router.compat.load import load_backend
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message
from tests.limits import HANG

MemoryQueue = consume.queue_class(MemoryBackend)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def backend(request, tmp_path):
    urls = {"memory": lambda: None, "sqlite": lambda: f"sqlite:///{tmp_path}/queue.db"}
    url = urls.get(request.param, lambda: request.getfixturevalue("abe_redis_url"))()
    async with asyncio.timeout(HANG), load_backend(url) if url else MemoryQueue() as backend:
        yield backend


async def counts(backend):
    (status,) = await backend.status()
    return status.ready, status.in_flight, status.dead


async def test_asking_for_the_next_payload_acks_the_one_before(backend):
    for number in (1, 2):
        await backend.publish("a", number)
    async with aclosing(backend.consume(group="g")) as stream:
        assert await anext(stream) == 1
        assert await counts(backend) == (1, 1, 0)
        assert await anext(stream) == 2
        assert await counts(backend) == (0, 1, 0)


async def test_leaving_the_loop_releases_the_last_payload(backend):
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


async def test_cancelling_the_task_releases_the_last_payload(backend):
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


async def test_the_loop_waits_for_messages_whose_key_matches(backend):
    async with aclosing(backend.consume(group="g", key="orders.*")) as stream:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await backend.publish("payments.settled", 1)
        await backend.publish("orders.created", 2)
        assert await waiting == 2


async def test_a_message_that_is_not_json_becomes_a_dead_letter_and_the_loop_continues(backend):
    await backend.append([Message("m1", "a", b"{")])
    await backend.publish("a", "fine")
    async with aclosing(backend.consume()) as stream:
        assert await anext(stream) == "fine"
    (dead,) = await backend.dead_letters("#", "default")
    assert (dead.message.id, dead.reason.kind, dead.route) == ("m1", "malformed", "#/default")


async def test_a_message_that_was_delivered_too_often_becomes_a_dead_letter(backend, monkeypatch):
    monkeypatch.setattr(consume, "MAX_DELIVERIES", 0)
    await backend.publish("a", "poison")
    async with aclosing(backend.consume()) as stream:
        waiting = asyncio.create_task(anext(stream))
        while not (dead := await backend.dead_letters("#", "default")):
            await asyncio.sleep(0.01)
        assert dead[0].reason.kind == "max_deliveries"
        waiting.cancel()
        await asyncio.wait({waiting})


async def test_the_loop_ends_when_the_backend_is_closed():
    async with MemoryQueue() as backend:
        await backend.publish("a", 1)
        async with aclosing(backend.consume()) as stream:
            assert await anext(stream) == 1
            waiting = asyncio.create_task(anext(stream, "ended"))
            await asyncio.sleep(0.01)
            await backend.close()
            async with asyncio.timeout(HANG):
                assert await waiting == "ended"


async def test_the_lease_is_renewed_while_the_loop_handles_a_payload(monkeypatch):
    now = 0.0
    backend = MemoryQueue(clock=lambda: now)
    extended = asyncio.Event()
    monkeypatch.setattr(consume, "LEASE", 0.03)
    subscribe = backend.subscribe

    async def watched(pattern, group, **options):
        subscription = await subscribe(pattern, group, lease=30.0)
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
            now += 25  # seconds, of a lease of 30
            extended.clear()
            await extended.wait()
        other = await subscribe("#", "default")
        assert await other.fetch(1, 0) == []


async def test_an_outage_after_the_start_is_waited_for(caplog):
    backend = MemoryQueue()
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
    assert caplog.text.count("no connection; next try in") == 2


async def test_a_backend_that_cannot_be_reached_at_the_start_is_an_error():
    with pytest.raises(BackendUnavailable):
        async with aclosing(load_backend("redis://127.0.0.1:1/0").consume()) as stream:
            await anext(stream)


@pytest.mark.parametrize("name", ["MemoryQueue", "RedisQueue", "SQLiteQueue"])
def test_the_classes_of_the_entry_points_have_consume_and_keep_their_names(name):
    queue = getattr(consume, name)
    assert issubclass(queue, consume.QueueBackend)
    assert queue is consume.queue_class(queue) is consume.queue_class(queue.__mro__[2])
    with pytest.raises(AttributeError, match="KafkaQueue"):
        consume.KafkaQueue  # noqa: B018
