"""Deliveries that reach their consumer late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from abe_router.backend import ACKED, Delivery
from abe_router.backends.memory.backend import MemorySubscription
from abe_router.consumer.lease_keeper import Leases
from abe_router.messages.message import new_message
from abe_router.observe.events import Events, LeaseLost

from .conftest import make_route


async def test_what_somebody_else_took_while_a_fetch_stood_still_is_not_started(running, monkeypatch):
    """Stuck otherwise, too: a consumer whose whole hand was lost, and who never fetches again."""
    handled: asyncio.Queue[Any] = asyncio.Queue()
    rival = await running.backend.subscribe("orders.created", "billing", lease=0.1)
    subscribe = running.backend.subscribe

    async def subscribe_late(*names: Any, **options: Any) -> Any:
        subscription = await subscribe(*names, **options)
        fetch = subscription.fetch

        async def stand_still(limit: int, wait: float) -> Sequence[Delivery]:
            deliveries = await fetch(limit, wait)
            if deliveries and deliveries[0].message.body == b"1":
                async with asyncio.timeout(5):
                    taken = await rival.fetch(10, 5)
                await rival.settle([(delivery, ACKED) for delivery in taken])
            return deliveries

        subscription.fetch = stand_still
        return subscription

    monkeypatch.setattr(running.backend, "subscribe", subscribe_late)
    await running.publish("orders.created", 1)
    await running.route(make_route(handled.put_nowait, lease=0.1, concurrency=1))
    await running.log.wait_for(LeaseLost)
    await running.publish("orders.created", 2)
    async with asyncio.timeout(5):
        assert await handled.get() == 2


async def test_what_comes_in_hand_during_a_renewal_is_not_taken_for_renewed():
    extending, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemorySubscription):
        async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
            extending.set()
            await go_on.wait()
            return []

    now = asyncio.get_running_loop().time
    held = [Delivery(new_message("orders.created", b"1"), 1, None)]
    slow = Slow.__new__(Slow)
    leases = Leases(make_route(print, lease=10.0), slow, Events(), held=lambda: held, drop=lambda _: [])
    leases.took(now() - 9.0)
    renewing = asyncio.create_task(leases.renew())
    await extending.wait()
    leases.took(now() - 8.0)
    go_on.set()
    await renewing
    assert now() > leases.overdue_at
    await leases.renew()
    assert now() < leases.overdue_at
