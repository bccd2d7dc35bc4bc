"""Batches, and the rate of a route."""

from __future__ import annotations

import asyncio

from abe_router.errors import Reject, Retry
from abe_router.messages.message import Message
from abe_router.observe.events import DeadLettered, Handled, Retried
from abe_router.routing.policies import Batch

from .conftest import make_route, within


async def test_batch_handler_gets_up_to_size_payloads(running):
    got = []

    async def charge(payloads):
        got.append(payloads)

    await running.publish("orders.created", *range(7))
    await running.route(make_route(charge, concurrency=1, batch=Batch(size=3, wait=0.01)))

    await running.log.wait_for(Handled, 7)
    assert got == [[0, 1, 2], [3, 4, 5], [6]]


async def test_incomplete_batch_is_handled_after_its_wait(running):
    async def charge(payloads):
        """Succeed."""

    await running.route(make_route(charge, batch=Batch(size=1000, wait=0.05)))
    await running.publish("orders.created", 1, 2)

    async with within():
        await running.log.wait_for(Handled, 2)


async def test_second_parameter_gets_the_messages(running):
    got = []

    async def charge(payloads, messages):
        got.extend(zip(payloads, messages, strict=True))

    await running.publish("orders.created", "a", "b")
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled, 2)
    assert [payload for payload, _ in got] == ["a", "b"]
    assert all(isinstance(message, Message) and message.attempt == 1 for _, message in got)


async def test_answers_settle_each_message(running):
    async def charge(payloads, messages):
        answers = {"good": None, "bad": Reject("no"), "later": Retry(after=0)}
        return [answers[p] if m.attempt == 1 else None for p, m in zip(payloads, messages, strict=True)]

    await running.publish("orders.created", "good", "bad", "later")
    await running.route(make_route(charge, batch=Batch(size=3)))

    await running.log.wait_for(Handled, 2)
    (dead_lettered,) = running.log.of(DeadLettered)
    assert dead_lettered.kind == "rejected"
    assert len(running.log.of(Retried)) == 1


async def test_batch_handler_that_raises_fails_each_message(running):
    async def charge(payloads, messages):
        if messages[0].attempt == 1:
            raise ValueError("all of you")

    await running.publish("orders.created", 1, 2)
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled, 2)
    assert [event.error for event in running.log.of(Retried)] == ["ValueError: all of you"] * 2


async def test_wrong_number_of_answers_is_a_failure(running):
    async def charge(payloads):
        return [None]

    await running.publish("orders.created", 1, 2)
    await running.route(make_route(charge, batch=Batch(size=2)))

    dead_lettered = await running.log.wait_for(DeadLettered, 2)
    errors = {event.error for event in dead_lettered}
    assert errors == {"BatchMismatch: the handler answered for 1 messages of 2"}


async def test_invalid_message_is_left_out_of_the_batch(running):
    got = []

    async def charge(payloads):
        got.extend(payloads)

    await running.backend.append([Message("x", "orders.created", b"{nope")])
    await running.publish("orders.created", 1)
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled)
    assert [event.kind for event in await running.log.wait_for(DeadLettered)] == ["malformed"]
    assert got == [1]


async def test_stop_releases_a_batch_that_is_not_full(running):
    async def charge(payloads):
        raise AssertionError("not called")

    await running.route(make_route(charge, batch=Batch(size=10, wait=60)))
    await running.publish("orders.created", 1, 2)
    while running.router.consumers["orders.created/billing"].in_flight < 2:
        await asyncio.sleep(0)

    async with within():
        await running.router.stop()
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (2, 0)


async def test_rate_limits_a_route(running):
    loop = asyncio.get_running_loop()
    times = []

    async def charge(payload):
        times.append(loop.time())

    await running.publish("orders.created", *range(40))
    await running.route(make_route(charge, rate=100.0))

    await running.log.wait_for(Handled, 40)
    # A burst of 10 (the rate of a tenth of a second), and then one every 10 ms.
    assert times[-1] - times[0] >= 0.28
    for begin in times:
        assert sum(begin <= at < begin + 0.1 for at in times) <= 21
