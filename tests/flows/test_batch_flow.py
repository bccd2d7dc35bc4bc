"""How batches flow, and how a rate holds messages back."""

from __future__ import annotations

import asyncio

from abe_router.routing.policies import Batch

from abe_router.errors import Reject, Retry
from abe_router.messages.message import Message
from abe_router.observe.events import DeadLettered, Handled, Retried

from .conftest import make_route, within


async def test_a_batch_handler_gets_a_list_of_up_to_size_payloads(running):
    got = []

    async def charge(payloads):
        got.append(payloads)

    await running.publish("orders.created", *range(7))
    await running.route(make_route(charge, concurrency=1, batch=Batch(size=3, wait=0.01)))

    await running.log.wait_for(Handled, 7)
    assert got == [[0, 1, 2], [3, 4, 5], [6]]


async def test_an_incomplete_batch_waits_no_longer_than_it_may(running):
    async def charge(payloads):
        """Take what there is."""

    await running.route(make_route(charge, batch=Batch(size=1000, wait=0.05)))
    await running.publish("orders.created", 1, 2)

    async with within(1):
        await running.log.wait_for(Handled, 2)


async def test_a_second_parameter_gets_the_messages(running):
    got = []

    async def charge(payloads, messages):
        got.extend(zip(payloads, messages, strict=True))

    await running.publish("orders.created", "a", "b")
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled, 2)
    assert [payload for payload, _ in got] == ["a", "b"]
    assert all(isinstance(message, Message) and message.attempt == 1 for _, message in got)


async def test_items_are_settled_one_by_one_by_what_the_handler_returns(running):
    async def charge(payloads, messages):
        words = {"good": None, "bad": Reject("no"), "later": Retry(after=0)}
        return [words[p] if m.attempt == 1 else None for p, m in zip(payloads, messages, strict=True)]

    await running.publish("orders.created", "good", "bad", "later")
    await running.route(make_route(charge, batch=Batch(size=3)))

    await running.log.wait_for(Handled, 2)
    (died,) = running.log.of(DeadLettered)
    assert died.kind == "rejected"
    assert len(running.log.of(Retried)) == 1


async def test_a_batch_handler_that_raises_fails_each_of_its_messages(running):
    async def charge(payloads, messages):
        if messages[0].attempt == 1:
            raise ValueError("all of you")

    await running.publish("orders.created", 1, 2)
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled, 2)
    assert [event.error for event in running.log.of(Retried)] == ["ValueError: all of you"] * 2


async def test_an_answer_for_another_number_of_messages_is_a_failure(running):
    async def charge(payloads):
        return [None]

    await running.publish("orders.created", 1, 2)
    await running.route(make_route(charge, batch=Batch(size=2)))

    died = await running.log.wait_for(DeadLettered, 2)
    assert {event.error for event in died} == {"BatchMismatch: the handler answered for 1 messages of 2"}


async def test_what_is_invalid_leaves_the_batch_and_the_rest_is_handled(running):
    got = []

    async def charge(payloads):
        got.extend(payloads)

    await running.backend.append([Message("x", "orders.created", b"{nope")])
    await running.publish("orders.created", 1)
    await running.route(make_route(charge, batch=Batch(size=2)))

    await running.log.wait_for(Handled)
    assert [event.kind for event in await running.log.wait_for(DeadLettered)] == ["malformed"]
    assert got == [1]


async def test_stopping_hands_back_a_batch_that_was_still_gathering(running):
    async def charge(payloads):
        raise AssertionError("not called")

    await running.route(make_route(charge, batch=Batch(size=10, wait=60)))
    await running.publish("orders.created", 1, 2)
    while running.router.consumers["orders.created/billing"].in_hand < 2:
        await asyncio.sleep(0)

    async with within(2):
        await running.router.stop()
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (2, 0)


async def test_a_rate_is_kept_over_all_consumers_of_a_route(running):
    loop = asyncio.get_running_loop()
    times = []

    async def charge(payload):
        times.append(loop.time())

    await running.publish("orders.created", *range(40))
    await running.route(make_route(charge, rate=100.0))

    await running.log.wait_for(Handled, 40)
    # A burst of 10, the tenth of a second that may be caught up, and then one every 10 ms.
    assert times[-1] - times[0] >= 0.28
    for begin in times:
        assert sum(begin <= at < begin + 0.1 for at in times) <= 21
