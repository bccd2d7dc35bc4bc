"""Messages of one ordering key are handled in order, through failures, stops and edits."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from abe_router.backend import ACKED, Delayed
from abe_router.consumer.backend_calls import Recovery
from abe_router.consumer.in_flight import InFlight
from abe_router.consumer.lease_keeper import LeaseKeeper
from abe_router.consumer.ordering import OrderedSubscription
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.suspects import SuspectGate
from abe_router.errors import BackendUnavailable, Reject, Retry, SubscriptionClosed
from abe_router.observe.events import DeadLettered, Events, Handled, LeaseLost, Retried
from abe_router.observe.tally import RouteTally
from abe_router.routing.policies import RetryPolicy
from tests.limits import HANG

from .conftest import PatchedBackend, Running, make_route, within

ROUTE = "orders.created/billing"


class Journal:
    """Records what a handler began and ended, by customer."""

    def __init__(self) -> None:
        self.began: dict[str, list[int]] = defaultdict(list)
        self.ended: dict[str, list[int]] = defaultdict(list)

    def assert_in_order(self, counts: dict[str, int]) -> None:
        for customer, count in counts.items():
            assert list(dict.fromkeys(self.ended[customer])) == list(range(count))


def order(customer: str, number: int) -> dict:
    return {"customer": {"id": customer}, "number": number}


async def test_messages_of_one_ordering_key_wait_for_each_other_alone(running: Running):
    journal, slow = Journal(), asyncio.Event()

    async def charge(payload):
        customer, number = payload["customer"]["id"], payload["number"]
        assert journal.ended[customer] == list(range(number))
        journal.began[customer].append(number)
        if customer == "a":
            await slow.wait()
        journal.ended[customer].append(number)

    await running.route(make_route(charge, order_by="/customer/id", concurrency=4))
    await running.publish("orders.created", *(order(c, n) for n in range(20) for c in "abc"))
    async with within():
        await running.log.wait_for(Handled, 40)
    assert journal.began["a"] == [0]
    slow.set()
    await running.log.wait_for(Handled, 60)
    journal.assert_in_order({"a": 20, "b": 20, "c": 20})


async def test_retry_holds_up_its_ordering_key_alone(running: Running):
    tried: list[tuple[str, int]] = []

    async def charge(payload, message):
        tried.append((payload["customer"]["id"], payload["number"]))
        if payload == order("a", 0) and message.attempt < 3:
            raise ValueError("no stock")

    route = make_route(
        charge,
        order_by="/customer/id",
        concurrency=4,
        retry=RetryPolicy(attempts=5, initial=0.05, jitter=False),
    )
    await running.route(route)
    await running.publish("orders.created", *(order(c, n) for n in range(3) for c in "ab"))
    await running.log.wait_for(Handled, 6)
    assert [number for customer, number in tried if customer == "a"] == [0, 0, 0, 1, 2]
    assert [number for customer, number in tried if customer == "b"] == [0, 1, 2]
    assert tried.index(("b", 2)) < tried.index(("a", 1))
    assert len(running.log.of(Retried)) == 2


async def test_dead_letter_frees_its_ordering_key(running: Running):
    done: list[int] = []

    async def charge(payload):
        if payload["number"] == 0:
            raise Reject("no such customer")
        done.append(payload["number"])

    await running.route(make_route(charge, order_by="/customer/id"))
    await running.publish("orders.created", *(order("a", n) for n in range(3)))
    await running.log.wait_for(Handled, 2)
    assert done == [1, 2]
    assert len(running.log.of(DeadLettered)) == 1


async def test_refused_outcome_starts_nothing_more(running: Running):
    began: list[str] = []
    go_on = asyncio.Semaphore(0)

    async def charge(payload):
        began.append(payload["customer"]["id"])
        await go_on.acquire()

    await running.route(make_route(charge, order_by="/customer/id", concurrency=1))
    consumer = running.router.consumers[ROUTE]
    consumer._prefetch.depth = 8  # as after a long time in which handlers kept up
    await running.publish("orders.created", *(order(c, 0) for c in "abcd"))
    async with within():
        while len(consumer._in_flight.buffer) < 3:
            await asyncio.sleep(0)
    group = running.backend._queues["orders.created", "billing"]
    group.owner = group.owner[0], 0.0  # as after a server lost the owner
    other = await running.backend.subscribe_exclusive("orders.created", "billing")
    taken = await other.fetch(10, HANG)
    assert len(taken) == 4
    await other.settle([(delivery, ACKED) for delivery in taken])
    go_on.release()  # the next one begins before the outcome of the first is refused
    await running.log.wait_for(LeaseLost)
    go_on.release()
    await running.log.wait_for(LeaseLost, 2)
    assert began == ["a", "b"]
    await other.close()
    go_on.release()
    await running.publish("orders.created", order("e", 0))
    await running.log.wait_for(Handled)
    assert began == ["a", "b", "e"]


async def test_edit_keeps_the_order_and_the_time_of_a_retry(running: Running):
    began: list[tuple[int, float]] = []

    async def charge(payload, message):
        began.append((payload["number"], asyncio.get_running_loop().time()))
        if payload["number"] == 0 and message.attempt == 1:
            raise Retry("later", after=0.3)

    await running.route(make_route(charge, order_by="/customer/id"))
    await running.publish("orders.created", *(order("a", n) for n in range(3)))
    await running.log.wait_for(Retried)
    await running.route(make_route(charge, order_by="/customer/id", concurrency=3))
    await running.log.wait_for(Handled, 3)
    assert [number for number, _ in began] == [0, 0, 1, 2]
    assert began[1][1] - began[0][1] >= 0.29


async def test_message_that_kills_its_process_dead_letters_no_other(running: Running):
    """The messages behind it were in flight each time as well."""
    await running.publish("orders.created", *(order("a", n) for n in range(30)))
    for nth in range(3):  # each fetches, and ends without a word
        killed = await running.backend.subscribe_exclusive("orders.created", "billing", lease=0.01)
        assert await killed.fetch(1 if nth else 30, HANG)
    done: list[int] = []

    async def charge(payload):
        done.append(payload["number"])

    await running.route(make_route(charge, order_by="/customer/id", max_deliveries=3))
    await running.log.wait_for(Handled, 29)
    assert done == list(range(1, 30))
    (dead_letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert dead_letter.reason.kind == "max_deliveries"


async def test_order_is_kept_through_an_outage_longer_than_the_lease():
    """The next message of an ordering key waits until the outcome is stored, and nothing runs twice."""
    handled: list[int] = []
    down = asyncio.Event()

    def unless_down(call):
        async def call_unless_down(items):
            if down.is_set():
                raise BackendUnavailable("down")
            return await call(items)

        return call_unless_down

    def patch(subscription):
        subscription.settle = unless_down(subscription.settle)
        subscription.extend = unless_down(subscription.extend)

    async def charge(payload):
        if not handled:
            down.set()
        handled.append(payload["number"])

    running = Running(PatchedBackend(patch))
    await running.route(make_route(charge, order_by="/customer/id", lease=0.1))
    await running.publish("orders.created", *(order("a", n) for n in range(3)))
    async with within():
        await down.wait()
    await asyncio.sleep(0.4)
    assert handled == [0]
    down.clear()
    await running.log.wait_for(Handled, 3)
    await running.router.stop(drain=0)
    assert handled == [0, 1, 2]


async def test_ack_during_a_renewal_loses_no_lease(running: Running):
    keys = OrderingKeys("/customer/id")
    in_flight = InFlight(30.0, 500, keys)
    await running.publish("orders.created", order("a", 0), order("b", 0))
    handle = await running.backend.subscribe_exclusive("orders.created", "billing")
    ordered = OrderedSubscription(handle, keys, in_flight)
    async with within():
        deliveries = await ordered.fetch(2, 1.0)
        while len(deliveries) < 2:
            deliveries = [*deliveries, *await ordered.fetch(2, 1.0)]
        refused, not_extended = await asyncio.gather(
            ordered.settle([(deliveries[0], ACKED)]), ordered.extend(deliveries)
        )
        broken = keys.broken
        await ordered.close()
    assert (list(refused), list(not_extended), broken) == ([], [], False)


async def test_delivery_that_waits_for_the_fetches_of_others_is_not_taken_for_renewed(running: Running):
    """Its lease may be over by then, and a handler must not start before that is known."""
    await running.publish("orders.created", order("a", 0))
    killed = await running.backend.subscribe_exclusive("orders.created", "billing", lease=0.01)
    assert await killed.fetch(1, HANG)
    keys, gate, waits = OrderingKeys("/customer/id"), SuspectGate(), asyncio.Event()
    in_flight = InFlight(0.0, 500, keys)  # a renewal is due at any time
    handle = await running.backend.subscribe_exclusive("orders.created", "billing")
    ordered = OrderedSubscription(handle, keys, in_flight, gate)
    keeper = LeaseKeeper(make_route(print), ordered, in_flight, Events([]), Recovery(), RouteTally())
    async with within():
        with gate.fetching(waits.set):  # what another route does
            fetching = asyncio.create_task(ordered.fetch(1, 5.0))
            await waits.wait()
            in_flight.track(fetched_at := asyncio.get_running_loop().time())  # of anything else
            await keeper.renew()
        assert await fetching
        await ordered.close()
    assert in_flight.leases.began_at < fetched_at


async def test_refused_outcome_frees_no_ordering_key_while_a_retry_is_postponed():
    """The next message of that ordering key may be handled elsewhere already."""
    keys, postponing, go_on = OrderingKeys("/customer/id"), asyncio.Event(), asyncio.Event()

    def patch(subscription):
        postpone = subscription.postpone

        async def refuse(settlements):
            return [delivery for delivery, _ in settlements]

        async def postpone_late(failed):
            postponing.set()
            await go_on.wait()
            return await postpone(failed)

        subscription.settle, subscription.postpone = refuse, postpone_late

    backend = PatchedBackend(patch)
    for payload in (order("a", 0), order("b", 0), order("a", 1)):
        await backend.publish("orders.created", payload)
    handle = await backend.subscribe_exclusive("orders.created", "billing")
    ordered = OrderedSubscription(handle, keys, InFlight(30.0, 500, keys))
    async with within():
        deliveries = []
        while len(keys) < 3 or len(deliveries) < 2:
            deliveries += await ordered.fetch(2, 0.01)
        settling = asyncio.create_task(
            ordered.settle([(deliveries[0], ACKED), (deliveries[1], Delayed(0.0))])
        )
        await postponing.wait()
        with pytest.raises(SubscriptionClosed):
            await ordered.fetch(1, 0.01)
        go_on.set()
        assert list(await settling) == [deliveries[0]]
        await ordered.close()
