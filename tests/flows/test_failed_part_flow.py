"""A part of a consumer that fails by a bug ends the consumer, which is then started again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from abe_router.consumer import Consumer
from abe_router.consumer.attempt import Attempts
from abe_router.consumer.fetcher import Fetcher
from abe_router.consumer.in_flight import LeaseClock
from abe_router.consumer.ordering import OrderedSubscription
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.pool import WorkerPool
from abe_router.consumer.settler import Settler
from abe_router.observe.events import ConsumerStarted, ConsumerStopped, Event, Events, Handled

from .conftest import EventLog, Running, make_route, within

#: Of each part a method that fails once when it has work: the class, the method, whether it is a coroutine.
PARTS = [
    pytest.param(Fetcher, "_room", False, id="fetcher"),
    pytest.param(Attempts, "start", False, id="slot"),
    pytest.param(WorkerPool, "_expire", False, id="worker pool"),
    pytest.param(Settler, "_settle", True, id="settler"),
    pytest.param(LeaseClock, "is_due", False, id="lease keeper"),
    pytest.param(OrderedSubscription, "_fetch_some", True, id="ordering"),
    pytest.param(OrderingKeys, "take", False, id="ordering keys"),
]
ORDERED = (OrderedSubscription, OrderingKeys)


@pytest.mark.parametrize(("kind", "method", "is_async"), PARTS)
async def test_part_that_fails_ends_the_consumer_and_no_message_is_lost(
    kind, method, is_async, monkeypatch, caplog
):
    running, failed, go_on, got = Running(), asyncio.Event(), asyncio.Event(), []
    works = getattr(kind, method)

    def fail_once():
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")

    async def fail_then_work(*args):
        fail_once()
        return await works(*args)

    def fail_then_work_plain(*args):
        fail_once()
        return works(*args)

    async def charge(payload):
        await go_on.wait()
        got.append(payload["id"])

    options = {"order_by": "/id"} if kind in ORDERED else {}
    route = make_route(charge, lease=0.2, timeout=5.0, **options)
    monkeypatch.setattr(kind, method, fail_then_work if is_async else fail_then_work_plain)
    if kind is Settler:
        go_on.set()
    await running.route(route)
    await running.publish("orders.created", *({"id": n} for n in range(5)))
    async with within():
        await failed.wait()
    go_on.set()
    await running.log.wait_for(ConsumerStarted, 2)
    async with within():
        while len(set(got)) < 5:
            await asyncio.sleep(0.01)
        while any(s.ready + s.in_flight + s.delayed for s in await running.backend.status()):
            await asyncio.sleep(0.01)
    assert "orders.created/billing: the consumer failed" in caplog.text
    assert "RuntimeError: a bug" in caplog.text
    assert set(got) == set(range(5))
    assert len(running.log.of(ConsumerStopped)) == 1
    await running.router.stop()
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight, status.delayed, status.dead) == (0, 0, 0, 0)


async def test_other_handlers_end_and_are_settled_when_a_slot_fails(running: Running, monkeypatch):
    """What runs in the other slots is not cancelled, and does not run twice."""
    began, go_on, got = asyncio.Semaphore(0), asyncio.Event(), []
    start = Attempts.start

    def start_or_fail(self, slot, delivery, now):
        if delivery.message.payload == 3 and delivery.deliveries == 1:
            raise RuntimeError("a bug")
        return start(self, slot, delivery, now)

    async def charge(payload):
        began.release()
        if payload < 3:
            await go_on.wait()
        got.append(payload)

    monkeypatch.setattr(Attempts, "start", start_or_fail)
    await running.route(make_route(charge, concurrency=4, lease=0.5))
    await running.publish("orders.created", 1, 2)
    for _ in range(2):
        await began.acquire()
    await running.publish("orders.created", 3)
    await asyncio.sleep(0.05)
    go_on.set()
    await running.log.wait_for(Handled, 3)
    assert sorted(got) == [1, 2, 3]


@pytest.mark.parametrize("order_by", [None, "/id"])
async def test_cancelled_consumer_releases_what_is_in_flight(running: Running, order_by):
    log, began = EventLog(), asyncio.Event()

    async def charge(payload):
        began.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        route = make_route(charge, concurrency=2, order_by=order_by)
        events = Events([((Event,), log)])
        consumer = Consumer(route, running.backend, events, revision="", threads=threads)
        await running.publish("orders.created", *({"id": n % 2} for n in range(10)))
        consuming = asyncio.create_task(consumer.run())
        await began.wait()
        consuming.cancel()
        async with within():
            await asyncio.wait({consuming})
    assert consuming.cancelled()
    assert consumer.in_flight == 0
    (stopped,) = log.of(ConsumerStopped)
    assert stopped.abandoned == 2
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (10, 0)
