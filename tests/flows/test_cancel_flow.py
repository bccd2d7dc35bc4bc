"""What becomes of a handler that cancels the task it runs in, and of those after it."""

from __future__ import annotations

import asyncio

from abe_router.routing.policies import RetryPolicy

from abe_router.observe.events import ConsumerStarted, DeadLettered, Handled

from .conftest import make_route

ONCE = {"concurrency": 1, "retry": RetryPolicy(attempts=1)}


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def test_it_is_a_failure_of_that_message_alone(running):
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


async def test_one_that_swallows_it_did_its_work_and_a_later_one_can_still_run_out_of_time(running):
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


async def test_what_it_leaves_behind_and_strikes_later_holds_up_nobody(running):
    async def charge(payload):
        if payload == 1:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            asyncio.get_running_loop().call_later(0.02, struck.set)

    struck = asyncio.Event()
    await running.publish("orders.created", 1)
    await running.route(make_route(charge, **ONCE))
    await running.log.wait_for(Handled)
    await struck.wait()
    await running.publish("orders.created", 2, 3)

    await running.log.wait_for(Handled, 3)
    assert len(running.log.of(ConsumerStarted)) == 1
