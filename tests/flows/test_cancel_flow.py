"""Handlers that cancel the task they run in."""

from __future__ import annotations

import asyncio

from abe_router.observe.events import ConsumerStarted, DeadLettered, Handled
from abe_router.routing.policies import RetryPolicy

from .conftest import make_route

ONCE = {"concurrency": 1, "retry": RetryPolicy(attempts=1)}


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def test_handler_that_cancels_itself_fails_its_message_alone(running):
    async def charge(payload):
        if payload == 1:
            cancel()
            await asyncio.sleep(0)

    await running.publish("orders.created", 1, 2, 3)
    await running.route(make_route(charge, **ONCE))

    await running.log.wait_for(Handled, 2)
    (died,) = await running.log.wait_for(DeadLettered)
    assert died.error == "CancelledError: the handler was cancelled from within"
    assert len(running.log.of(ConsumerStarted)) == 1


async def test_swallowed_cancellation_is_a_success_and_later_timeouts_work(running):
    async def charge(payload):
        if payload == 1:
            cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                return
        elif payload == 2:
            await asyncio.Event().wait()

    await running.publish("orders.created", 1, 2, 3)
    await running.route(make_route(charge, timeout=0.05, **ONCE))

    await running.log.wait_for(Handled, 2)
    (died,) = await running.log.wait_for(DeadLettered)
    assert died.kind == "timeout"


async def test_slot_cancelled_after_its_handler_is_replaced(running):
    async def charge(payload):
        if payload == 1:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            asyncio.get_running_loop().call_later(0.02, cancelled.set)

    cancelled = asyncio.Event()
    await running.publish("orders.created", 1)
    await running.route(make_route(charge, **ONCE))
    await running.log.wait_for(Handled)
    await cancelled.wait()
    await running.publish("orders.created", 2, 3)

    await running.log.wait_for(Handled, 3)
    assert len(running.log.of(ConsumerStarted)) == 1
