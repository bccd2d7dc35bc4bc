"""No message begins while `max_unacked` handled ones wait for their acks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from abe_router.observe.events import Handled
from abe_router.routing.policies import Batch

from .conftest import PatchedBackend, Running, make_route, within


@pytest.mark.parametrize("handler_waits", [False, True])
@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"max_unacked": 1, "concurrency": 1}, 1),
        ({"max_unacked": 1, "concurrency": 4}, 4),
        ({"max_unacked": 7, "concurrency": 3}, 9),
        ({"max_unacked": 5, "concurrency": 1, "batch": Batch(4, 0.0)}, 8),
        ({"max_unacked": 1, "concurrency": 1, "order_by": "/id"}, 1),
    ],
    ids=["strict", "strict and concurrent", "some", "batch", "ordered"],
)
async def test_no_message_begins_while_too_many_are_not_acked(options, most, handler_waits):
    began, settled, worst, go_on = 0, 0, 0, asyncio.Event()

    def patch(subscription: Any) -> None:
        settle = subscription.settle

        async def settle_when_allowed(settlements: Any) -> Any:
            nonlocal settled
            await go_on.wait()
            refused = await settle(settlements)
            settled += len(settlements)
            return refused

        subscription.settle = settle_when_allowed

    async def charge(payload: Any) -> None:
        nonlocal began, worst
        began += len(payload) if isinstance(payload, list) else 1
        worst = max(worst, began - settled)
        if handler_waits:
            await asyncio.sleep(0)

    running = Running(PatchedBackend(patch))
    await running.publish("orders.created", *({"id": n} for n in range(60)))
    await running.route(make_route(charge, **options))
    async with within():
        while not began:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert 1 <= began <= most
    go_on.set()
    await running.log.wait_for(Handled, 60)
    assert worst <= most
    await running.router.stop()


async def test_slot_that_waits_for_acks_ends_with_the_route():
    settling = asyncio.Event()

    def patch(subscription: Any) -> None:
        settle = subscription.settle

        async def settle_later(settlements: Any) -> Any:
            settling.set()
            await asyncio.sleep(0.2)
            return await settle(settlements)

        subscription.settle = settle_later

    async def charge(payload: Any) -> None:
        """Take it."""

    running = Running(PatchedBackend(patch))
    await running.publish("orders.created", *range(20))
    await running.route(make_route(charge, max_unacked=1, concurrency=2))
    async with within():
        await settling.wait()
        assert await running.router.stop() == 0
    (status,) = await running.backend.status()
    assert (status.in_flight, status.dead) == (0, 0)
    assert status.ready >= 15
