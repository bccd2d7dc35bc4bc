"""The flow of an edit: a new table is compared by value and changes only the consumers that it must."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from abe_router.observe.events import ConsumerStarted, ConsumerStopped, Handled

from .conftest import PatchedBackend, Running, make_route, within


async def note(payload):
    """Do nothing; the Handled event shows the call."""


async def test_an_unchanged_route_keeps_its_consumer(running):
    billing, audit = make_route(note), make_route(note, group="audit")
    await running.route(billing)
    before = running.router.consumers["orders.created/billing"]

    reloaded = await running.route(replace(billing), audit)

    assert running.router.consumers["orders.created/billing"] is before
    assert (reloaded.added, reloaded.removed, reloaded.changed, reloaded.kept) == (
        ("orders.created/audit",),
        (),
        (),
        1,
    )


async def test_a_changed_route_gets_a_new_consumer_after_the_old_one_has_drained(running):
    order = []
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(payload):
        order.append("begin")
        started.set()
        await go.wait()
        order.append("end")

    route = make_route(slow, concurrency=1)
    await running.route(route)
    await running.publish("orders.created", 1)
    await started.wait()
    changing = asyncio.create_task(running.route(replace(route, concurrency=2)))
    await asyncio.sleep(0)
    await running.publish("orders.created", 2)
    go.set()

    reloaded = await changing
    await running.log.wait_for(Handled, 2)
    assert reloaded.changed == ("orders.created/billing",)
    assert order == ["begin", "end", "begin", "end"]
    assert running.router.consumers["orders.created/billing"].route.concurrency == 2


async def test_a_removed_route_stops_and_its_messages_stay(running):
    route = make_route(note)
    await running.route(route)
    reloaded = await running.route()
    await running.publish("orders.created", 1)

    assert reloaded.removed == ("orders.created/billing",)
    assert running.router.consumers == {}
    (status,) = await running.backend.status()
    assert status.ready == 1

    await running.route(route)
    await running.log.wait_for(Handled)


async def test_an_added_route_does_not_wait_for_another_to_drain(running):
    started = asyncio.Event()

    async def stuck(payload):
        started.set()
        await asyncio.Event().wait()

    await running.route(make_route(stuck, drain=30))
    await running.publish("orders.created", 1)
    await started.wait()

    changing = asyncio.create_task(running.route(make_route(note, group="audit")))
    async with within():
        await running.log.wait_for(Handled)
    assert not changing.done()
    await running.router.stop(drain=0)
    await changing


async def test_a_route_that_is_added_again_while_it_drains_runs_afterwards(running):
    started, go = asyncio.Event(), asyncio.Event()

    async def slow(payload):
        started.set()
        await go.wait()

    route = make_route(slow)
    await running.route(route)
    await running.publish("orders.created", 1)
    await started.wait()
    removing = asyncio.create_task(running.route())
    await asyncio.sleep(0)
    adding = asyncio.create_task(running.route(route))
    await asyncio.sleep(0)
    go.set()

    await removing
    await adding
    await running.publish("orders.created", 2)
    await running.log.wait_for(Handled, 2)
    assert len(running.log.of(ConsumerStarted)) == 2


async def test_twenty_edits_under_load_lose_and_duplicate_no_message(running):
    got = []

    async def count(payload):
        await asyncio.sleep(0)
        got.append(payload)

    route = make_route(count)
    await running.route(route)

    async def load():
        for number in range(2_000):
            await running.publish("orders.created", number)
            if number % 20 == 0:
                await asyncio.sleep(0.001)

    loading = asyncio.create_task(load())
    for edit in range(20):
        await running.route(replace(route, concurrency=1 + edit % 3))
    await loading
    await running.log.wait_for(Handled, 2_000)
    assert sorted(got) == list(range(2_000))


async def test_a_consumer_that_fails_is_started_again_and_affects_no_other(caplog):
    fails = asyncio.Event()

    def patch(subscription):
        fetch = subscription.fetch

        async def broken(limit, wait):
            if subscription.group == "billing" and fails.is_set():
                fails.clear()
                raise RuntimeError("a bug")
            return await fetch(limit, wait)

        subscription.fetch = broken

    running = Running(PatchedBackend(patch))
    await running.route(make_route(note), make_route(note, group="audit"))
    other = running.router.consumers["orders.created/audit"]
    fails.set()
    await running.publish("orders.created", 1, 2)
    await running.log.wait_for(ConsumerStopped)
    await running.log.wait_for(ConsumerStarted, 3)
    await running.log.wait_for(Handled, 4)

    assert running.router.consumers["orders.created/audit"] is other
    assert "orders.created/billing: the consumer failed" in caplog.text
    await running.router.stop()
