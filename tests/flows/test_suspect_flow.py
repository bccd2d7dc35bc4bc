"""Messages whose process died are handled in groups after one death, and one at a time after several."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from abe_router.backend import Delivery, Subscription
from abe_router.backends.memory import MemoryBackend
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.ordering import OrderedSubscription
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.suspects import HEAD_START, SuspectGate
from abe_router.observe.events import Handled
from abe_router.routing.policies import Batch

from .conftest import Running, make_route, within

LEASE = 30.0
KEYS = "orders.created", "orders.paid"


@pytest.mark.parametrize("options", [{}, {"order_by": "/id"}, {"batch": Batch(4, 0.0)}], ids=str)
@pytest.mark.parametrize(
    ("deaths", "limit", "together"),
    [(1, None, True), (1, 4, True), (1, 3, False), (2, None, False)],
    ids=["one death", "two deliveries left alone", "too few deliveries left", "two deaths"],
)
async def test_suspects_run_together_only_after_one_death(deaths, limit, together, options):
    moved, at_once, most = 0.0, 0, 0
    running = Running(MemoryBackend(clock=lambda: time.monotonic() + moved))
    for key in KEYS:
        await running.publish(key, *({"id": n} for n in range(12)))
    subscribe = running.backend.subscribe_exclusive if "order_by" in options else running.backend.subscribe
    for _ in range(deaths):
        for key in KEYS:
            dead = await subscribe(key, "billing", lease=LEASE)
            assert len(await dead.fetch(100, 0.0)) == 12
        moved += 2 * LEASE

    async def charge(payload: Any) -> None:
        nonlocal at_once, most
        handled = len(payload) if isinstance(payload, list) else 1
        at_once += handled
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= handled

    routes = [
        make_route(charge, key, lease=LEASE, concurrency=4, max_deliveries=limit, **options) for key in KEYS
    ]
    await running.route(*routes)
    await running.log.wait_for(Handled, 2 * 12)
    assert most >= 4 if together else most == 1
    await running.router.stop()
    await running.backend.close()


async def test_suspects_run_before_what_was_fetched_ahead():
    running, handled, when_they_came = Running(MemoryBackend()), list[int](), list[int]()
    await running.publish(KEYS[0], *({"id": n} for n in range(700)))
    dead = await running.backend.subscribe(KEYS[0], "billing", lease=0.3)
    assert len(await dead.fetch(4, 0.0)) == 4
    subscribe = running.backend.subscribe

    async def subscribe_observed(*args: Any, **options: Any) -> Subscription:
        handle = await subscribe(*args, **options)
        fetch = handle.fetch

        async def fetch_observed(limit: int, wait: float) -> Sequence[Delivery]:
            found = await fetch(limit, wait)
            if any(each.deliveries > 1 for each in found):
                when_they_came.append(len(handled))
            return found

        handle.fetch = fetch_observed
        return handle

    async def charge(payload: Any) -> None:
        if len(handled) > 300:  # the quick ones before let the consumer fetch ahead
            await asyncio.sleep(0.005)
        handled.append(payload["id"])

    running.backend.subscribe = subscribe_observed
    await running.route(make_route(charge, KEYS[0], lease=LEASE, concurrency=1))
    await running.log.wait_for(Handled, 700)
    assert when_they_came[0] > 300
    assert max(map(handled.index, range(4))) - when_they_came[0] < 10
    await running.router.stop()
    await running.backend.close()


async def test_a_suspect_that_runs_alone_waits_for_groups_and_is_next():
    gate = SuspectGate()
    assert gate.acquire("a", alone=False)
    assert gate.acquire("b", alone=False)
    assert not gate.acquire("c", alone=True)
    assert not gate.acquire("d", alone=False)
    gate.release("a")
    assert not gate.acquire("c", alone=True)
    gate.release("b")
    assert not gate.acquire("d", alone=False)
    assert gate.acquire("c", alone=True)
    assert not gate.acquire("d", alone=False)
    gate.release("c")
    assert gate.acquire("d", alone=False)


async def test_a_consumer_that_is_next_and_finds_no_suspect_holds_up_no_other():
    gate = SuspectGate()
    assert gate.acquire("a", alone=True)
    assert not gate.acquire("b", alone=True)
    gate.release("a")
    assert not gate.acquire("c", alone=False)
    gate.release("b")
    assert gate.acquire("c", alone=False)


@pytest.mark.parametrize("ended", [True, False], ids=["it ends", "it has its head start"])
async def test_the_start_of_suspects_interrupts_probes_and_holds_up_new_ones(ended: bool):
    gate, interrupted, order = SuspectGate(), asyncio.Event(), list[str]()
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    async def probe(name: str) -> None:
        async with gate.probe(interrupted.set):
            order.append(name)
            await interrupted.wait()

    async def start() -> None:
        await gate.end_fetches("a", 5.0)
        order.append("start")
        await asyncio.sleep(0.01)
        order.append("ran")
        if ended:
            gate.release("a")

    assert gate.acquire("a", alone=True)
    first = asyncio.create_task(probe("first"))
    await asyncio.sleep(0)
    starting = asyncio.create_task(start())
    await asyncio.sleep(0)
    second = asyncio.create_task(probe("second"))
    async with within():
        await asyncio.gather(first, starting, second)
    assert order == ["first", "start", "ran", "second"]
    assert (loop.time() - began_at > HEAD_START) is not ended


async def test_the_end_of_an_earlier_head_start_does_not_shorten_the_next_one():
    gate, loop = SuspectGate(), asyncio.get_running_loop()
    await gate.end_fetches("a", 5.0)
    await asyncio.sleep(HEAD_START / 2)
    gate.release("a")
    await gate.end_fetches("a", 5.0)
    began_at = loop.time()
    async with within(), gate.probe(lambda: None):
        assert loop.time() - began_at > 0.9 * HEAD_START


async def test_an_ordered_route_starts_a_suspect_when_no_other_route_fetches_any_more():
    """What the other one holds, and is about to hand back, would count as handed out with a killer."""
    gate, keys, interrupted, moved = SuspectGate(), OrderingKeys("/id"), asyncio.Event(), 0.0
    async with MemoryBackend(clock=lambda: time.monotonic() + moved) as backend, within():
        await backend.publish(KEYS[0], {"id": 1})
        dead = await backend.subscribe_exclusive(KEYS[0], "billing", lease=LEASE)
        assert len(await dead.fetch(1, 0.0)) == 1
        moved = 2 * LEASE
        handle = await backend.subscribe_exclusive(KEYS[0], "billing", lease=LEASE)
        ordered = OrderedSubscription(handle, keys, InFlight(LEASE, 500, keys), gate)
        with gate.fetching(interrupted.set):
            starting = asyncio.create_task(ordered.fetch(1, 5.0))
            await interrupted.wait()
            assert not keys.active
        assert [delivery.deliveries for delivery in await starting] == [2]
        await ordered.close()
