"""An operator's limits: a running consumer is paused, or gets another rate, without a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from abe_router.consumer import RouteLimits
from abe_router.observe.events import ConsumerStarted, Handled

from .conftest import Running, make_route, within

ROUTE = "orders.created/billing"
PAUSED = {ROUTE: RouteLimits(paused=True)}


class Gate:
    """A handler that records its payloads, and waits until it is opened."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.began: list = []
        self.started, self.open = asyncio.Event(), asyncio.Event()
        if is_open:
            self.open.set()

    async def __call__(self, payload):
        self.began.append(payload)
        self.started.set()
        await self.open.wait()


async def ready(running: Running) -> int:
    (status,) = await running.backend.status()
    return status.ready


async def test_paused_route_finishes_what_runs_and_starts_nothing(running: Running):
    gate = Gate(is_open=False)
    await running.route(make_route(gate, concurrency=1))
    before = running.router.consumers[ROUTE]
    await running.publish("orders.created", 1)
    await gate.started.wait()
    running.router.limit(PAUSED)
    await running.publish("orders.created", 2, 3)
    gate.open.set()
    await running.log.wait_for(Handled)
    await asyncio.sleep(0.05)
    assert gate.began == [1]
    assert await ready(running) == 2

    running.router.limit({})
    async with within():  # the fetch of 5 s is not waited for
        await running.log.wait_for(Handled, 3)
    assert running.router.consumers[ROUTE] is before
    assert len(running.log.of(ConsumerStarted)) == 1


async def test_message_that_a_fetch_returns_after_the_pause_is_handed_back(running: Running):
    gate = Gate()
    await running.route(make_route(gate))
    await running.publish("orders.created", 0)
    await running.log.wait_for(Handled)
    subscription = running.router.consumers[ROUTE]._subscription
    fetch, entered, fetched = subscription.fetch, asyncio.Event(), asyncio.Event()

    async def slow(limit, wait):
        entered.set()
        found = await fetch(limit, wait)
        if found:
            running.router.limit(PAUSED)
            fetched.set()
        return found

    subscription.fetch = slow
    subscription.interrupt()
    await entered.wait()
    await running.publish("orders.created", 1)
    await fetched.wait()
    async with within():
        while await ready(running) == 0:
            await asyncio.sleep(0.01)
    assert gate.began == [0]
    assert running.router.consumers[ROUTE].in_flight == 0
    subscription.fetch = fetch
    running.router.limit({})
    await running.log.wait_for(Handled, 2)


async def test_pause_hands_back_what_the_rate_did_not_permit_yet(running: Running):
    gate = Gate()
    await running.route(make_route(gate, concurrency=10, rate=0.001))
    await running.publish("orders.created", *range(5))
    await running.log.wait_for(Handled)
    running.router.limit(PAUSED)
    async with within():
        while await ready(running) < 4:
            await asyncio.sleep(0.01)
    assert gate.began == [0]


async def test_new_rate_holds_for_the_next_tokens(running: Running):
    gate = Gate()
    await running.route(make_route(gate, concurrency=10, rate=0.001))
    await running.publish("orders.created", *range(5))
    await running.log.wait_for(Handled)
    running.router.limit({ROUTE: RouteLimits(rate=1000.0)})
    async with within():
        await running.log.wait_for(Handled, 5)
    running.router.limit({})
    await running.publish("orders.created", *range(5))
    await asyncio.sleep(0.1)
    assert len(gate.began) <= 6  # its own rate holds again; a burst is one token


async def test_route_without_a_rate_is_slowed_down_and_released(running: Running):
    gate = Gate()
    await running.route(make_route(gate, concurrency=10))
    await running.publish("orders.created", *range(1000))
    await running.log.wait_for(Handled, 1000)
    running.router.limit({ROUTE: RouteLimits(rate=0.001)})
    await running.publish("orders.created", *range(1000))
    await asyncio.sleep(0.1)
    assert len(gate.began) < 1000 + 500  # at most what was read ahead
    assert await ready(running) > 400
    running.router.limit({})
    async with within():
        await running.log.wait_for(Handled, 2000)


async def test_limits_hold_for_a_route_that_is_removed_and_added_again(running: Running):
    gate = Gate()
    route = make_route(gate)
    await running.route(route)
    running.router.limit(PAUSED)
    await running.route()
    await running.route(replace(route, concurrency=3))
    await running.publish("orders.created", 1)
    await asyncio.sleep(0.05)
    assert gate.began == []
    running.router.limit({})
    await running.log.wait_for(Handled)


async def test_paused_route_stops_at_once(running: Running):
    await running.route(make_route(Gate()))
    running.router.limit(PAUSED)
    await asyncio.sleep(0.05)
    async with within():
        await running.router.stop()


@pytest.mark.parametrize("rate", [None, 500.0])
async def test_ordered_route_keeps_its_order_over_pauses(running: Running, rate):
    got: dict[str, list[int]] = {}

    async def charge(payload):
        await asyncio.sleep(0)
        got.setdefault(payload["c"], []).append(payload["n"])

    await running.route(make_route(charge, order_by="/c", concurrency=4, rate=rate))
    await running.publish("orders.created", *({"c": c, "n": n} for n in range(30) for c in "abc"))
    for _ in range(5):
        await running.log.wait_for(Handled, len(running.log.of(Handled)) + 5)
        running.router.limit(PAUSED)
        await asyncio.sleep(0.02)
        seen = len(running.log.of(Handled))
        await asyncio.sleep(0.02)
        assert len(running.log.of(Handled)) == seen
        running.router.limit({})
    await running.log.wait_for(Handled, 90)
    assert got == {c: list(range(30)) for c in "abc"}


async def test_paused_ordered_route_fetches_nothing(running: Running):
    gate = Gate()
    await running.route(make_route(gate, order_by="/c", concurrency=4))
    await running.publish("orders.created", {"c": 1})
    await running.log.wait_for(Handled)
    running.router.limit(PAUSED)
    await running.publish("orders.created", *({"c": n} for n in range(2000)))
    await asyncio.sleep(0.1)
    assert len(gate.began) == 1
    assert await ready(running) >= 1000  # one fetch was under way
    running.router.limit({})
    await running.log.wait_for(Handled, 2001)


async def test_pause_longer_than_the_lease_of_an_ordered_route_keeps_its_order(running: Running):
    got: dict[str, list[int]] = {}
    other = Running(running.backend)

    async def charge(payload):
        await asyncio.sleep(0)
        got.setdefault(payload["c"], []).append(payload["n"])

    route = make_route(charge, order_by="/c", concurrency=4, lease=0.2)
    routers = (running.router, other.router)
    for router in (running, other):
        await router.route(route)
    try:
        for half in range(2):
            await running.publish(
                "orders.created", *({"c": c, "n": n + 20 * half} for n in range(20) for c in "abc")
            )
            if half == 0:
                async with within():
                    while sum(map(len, got.values())) < 10:
                        await asyncio.sleep(0)
                for router in routers:
                    router.limit(PAUSED)
                await asyncio.sleep(0.5)
        for router in routers:
            router.limit({})
        async with within():
            while sum(map(len, got.values())) < 120:
                await asyncio.sleep(0.01)
    finally:
        await other.router.stop(drain=0)
    assert got == {c: list(range(40)) for c in "abc"}
