"""Deliveries that reach their consumer after their leases ran out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from abe_router.backend import ACKED, Delivery
from abe_router.backends.memory import MemoryBackend
from abe_router.consumer import Recovery
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.messages.message import new_message
from abe_router.observe.events import Events, LeaseLost
from abe_router.observe.tally import RouteTally
from tests.limits import HANG

from .conftest import make_route


async def test_delivery_lost_before_it_arrived_is_not_started(running, monkeypatch):
    """A consumer that lost its whole buffer fetches again."""
    handled: asyncio.Queue[Any] = asyncio.Queue()
    other = await running.backend.subscribe("orders.created", "billing", lease=0.1)
    subscribe = running.backend.subscribe

    async def subscribe_with_late_fetch(*names: Any, **options: Any) -> Any:
        subscription = await subscribe(*names, **options)
        fetch = subscription.fetch

        async def fetch_late(limit: int, wait: float) -> Sequence[Delivery]:
            deliveries = await fetch(limit, wait)
            if deliveries and deliveries[0].message.body == b"1":
                async with asyncio.timeout(HANG):
                    taken = await other.fetch(10, HANG)
                await other.settle([(delivery, ACKED) for delivery in taken])
            return deliveries

        subscription.fetch = fetch_late
        return subscription

    monkeypatch.setattr(running.backend, "subscribe", subscribe_with_late_fetch)
    await running.publish("orders.created", 1)
    await running.route(make_route(handled.put_nowait, lease=0.1, concurrency=1))
    await running.log.wait_for(LeaseLost)
    await running.publish("orders.created", 2)
    async with asyncio.timeout(HANG):
        assert await handled.get() == 2


async def test_delivery_that_arrives_during_a_renewal_does_not_count_as_renewed():
    extending, go_on = asyncio.Event(), asyncio.Event()

    async def extend(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        extending.set()
        await go_on.wait()
        return []

    slow: Any = await MemoryBackend().subscribe("orders.created", "billing")
    slow.extend = extend
    now = asyncio.get_running_loop().time
    in_flight = InFlight(lease=10.0, max_unacked=500)
    in_flight.buffer.append(Delivery(new_message("orders.created", b"1"), 1, None))
    keeper = LeaseKeeper(make_route(print, lease=10.0), slow, in_flight, Events(), Recovery(), RouteTally())
    in_flight.track(now() - 9.0)
    renewing = asyncio.create_task(keeper.renew())
    await extending.wait()
    in_flight.track(now() - 8.0)
    go_on.set()
    await renewing
    assert now() > in_flight.leases.overdue_at
    await keeper.renew()
    assert now() < in_flight.leases.overdue_at
