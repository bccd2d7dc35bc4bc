"""A consumer whose subscription is closed by something else subscribes anew."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import SubscriptionClosed
from abe_router.observe.events import ConsumerStarted, ConsumerStopped, Handled

from .conftest import PatchedBackend, Running, make_route, within


class ClosingBackend(PatchedBackend):
    """The first `count` subscriptions are closed when `close` is set, or at once if it is set already."""

    def __init__(self, count: int = 1) -> None:
        super().__init__(self._patch_next)
        self.close_now = asyncio.Event()
        self.subscriptions: list = []
        self._count = count

    def _patch_next(self, subscription):
        self.subscriptions.append(subscription)
        if len(self.subscriptions) > self._count:
            return
        fetch = subscription.fetch

        async def fetch_until_closed(limit, wait):
            if self.close_now.is_set():
                raise SubscriptionClosed("the handle was closed")
            fetching = asyncio.create_task(fetch(limit, wait))
            closing = asyncio.create_task(self.close_now.wait())
            await asyncio.wait({fetching, closing}, return_when=asyncio.FIRST_COMPLETED)
            closing.cancel()
            if not fetching.done():
                subscription.interrupt()
            return await fetching

        subscription.fetch = fetch_until_closed


async def run(backend: MemoryBackend, *routes) -> Running:
    running = Running(backend)
    await running.route(*routes)
    return running


@pytest.mark.parametrize("order_by", [None, "/id"])
async def test_consumer_subscribes_anew_when_its_subscription_is_closed(order_by, caplog):
    backend, got = ClosingBackend(count=3), []

    async def charge(payload):
        got.append(payload["id"])

    running = await run(backend, make_route(charge, order_by=order_by))
    await running.publish("orders.created", {"id": 1})
    await running.log.wait_for(Handled)
    backend.close_now.set()
    async with within():
        while len(backend.subscriptions) < 4:
            await asyncio.sleep(0)
    await running.publish("orders.created", {"id": 2})
    await running.log.wait_for(Handled, 2)
    await running.router.stop()

    assert got == [1, 2]
    assert len(backend.subscriptions) == 4
    assert len(running.log.of(ConsumerStarted)) == len(running.log.of(ConsumerStopped)) == 1
    assert caplog.text.count("orders.created/billing: subscribing anew: ") == 1


async def test_running_handler_ends_before_the_consumer_subscribes_anew():
    backend, began, go_on, got = ClosingBackend(), asyncio.Event(), asyncio.Event(), []

    async def charge(payload):
        got.append(payload)
        began.set()
        await go_on.wait()

    running = await run(backend, make_route(charge, concurrency=1, drain=0.0))
    consumer = running.router.consumers["orders.created/billing"]
    consumer._prefetch.depth = 8  # as after a long time in which handlers kept up
    await running.publish("orders.created", 1, 2, 3)
    await began.wait()
    async with within():
        while consumer.in_flight < 3:
            await asyncio.sleep(0)
        backend.close_now.set()
        while consumer.in_flight > 1:  # what was not started is released at once
            await asyncio.sleep(0)
    assert len(backend.subscriptions) == 1
    go_on.set()
    await running.log.wait_for(Handled, 3)
    await running.router.stop()
    assert got == [1, 2, 3]
    (stopped,) = running.log.of(ConsumerStopped)
    assert (stopped.released, stopped.abandoned) == (2, 0)


async def test_stop_ends_a_consumer_whose_subscription_is_closed():
    backend = ClosingBackend(count=1_000_000)
    running = await run(backend, make_route(print))
    backend.close_now.set()
    async with within():
        while len(backend.subscriptions) < 2:
            await asyncio.sleep(0)
        await running.router.stop(drain=30.0)


async def test_consumer_of_a_closed_subscription_waits_between_its_attempts():
    backend = ClosingBackend(count=1_000_000)
    backend.close_now.set()
    running = await run(backend, make_route(print))
    await asyncio.sleep(0.5)
    await running.router.stop()
    assert 2 <= len(backend.subscriptions) <= 6


@pytest.mark.parametrize("order_by", [None, "/id"])
async def test_dropped_group_is_made_again(running: Running, order_by):
    got, handled = [], asyncio.Event()

    async def charge(payload):
        got.append(payload["id"])
        if payload["id"] == 2:
            handled.set()

    await running.route(make_route(charge, order_by=order_by))
    await running.publish("orders.created", {"id": 1})
    await running.log.wait_for(Handled)
    await running.backend.drop("orders.created", "billing")
    await running.publish("orders.created", {"id": 2})
    async with within():
        await handled.wait()
    assert len(running.log.of(ConsumerStarted)) == 1


async def test_fetch_that_returns_nothing_at_once_leaves_the_loop_to_others():
    def patch(subscription):
        async def fetch(limit, wait):
            return ()

        subscription.fetch = fetch

    running = await run(PatchedBackend(patch), make_route(print))
    async with within():
        await asyncio.sleep(0.01)
        await running.router.stop()
