"""A provider for Abstract Backend behind our contract: what works, and what cannot."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from abe_router.backend import RELEASED, Acked
from abe_router.backends.abstract import AbstractBackend
from abe_router.compat.load import load_backend
from abe_router.consumer import Consumer
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.observe.events import DeadLettered, Event, Events, Handled
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from tests.limits import HANG


class Queue:
    """The simplest provider: one queue for all keys and groups."""

    def __init__(self):
        self.queue, self.sent, self.groups = asyncio.Queue(), [], []

    async def publish(self, key, payload):
        self.sent.append((key, payload))
        await self.queue.put(payload)

    async def consume(self, *, group=None):
        self.groups.append(group)
        while True:
            payload = await self.queue.get()
            if isinstance(payload, Exception):
                raise payload
            yield payload


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
async def backend(queue):
    backend = AbstractBackend(queue, "acme")
    yield backend
    await backend.close()


async def test_health_check_lists_the_features_an_adapted_provider_lacks(backend):
    found = {result.code: result for result in await backend.check_health()}
    assert {"D101", "D103", "D104", "D105", "D106"} <= set(found)
    assert all(found[code].severity == "error" for code in ("D101", "D103", "D104", "D105", "D106"))
    assert "delivered at most once" in found["D104"].meaning


async def test_key_id_and_headers_travel_in_an_extra_member_of_the_payload(backend, queue):
    sent = await backend.publish("orders.created", {"total": 5}, headers={"trace": "t"})
    subscription = await backend.subscribe("orders.#", "billing")
    (delivery,) = await subscription.fetch(1, 1)
    await subscription.close()

    got = delivery.message
    assert (got.id, got.key, got.payload, got.headers, got.attempt) == (
        sent.id,
        "orders.created",
        {"total": 5},
        {"trace": "t"},
        1,
    )
    assert queue.sent[0][0] == "orders.created"
    assert queue.sent[0][1]["total"] == 5


async def test_the_prefix_precedes_the_key_that_the_provider_gets(queue):
    backend = AbstractBackend(queue, "acme", prefix="slack:")
    await backend.publish("orders.created", {})
    assert queue.sent[0][0] == "slack:orders.created"


async def test_a_payload_that_is_not_an_object_travels_in_the_envelope(backend, queue):
    subscription = await backend.subscribe("a", "g")
    for payload in ([1], None, "text"):
        await backend.publish("a", payload)
        (delivery,) = await subscription.fetch(1, 1)
        assert delivery.message.payload == payload
    assert all(isinstance(payload, dict) for _, payload in queue.sent)
    await subscription.close()


async def test_member_with_the_name_of_the_envelope_is_kept_as_payload(backend, queue):
    subscription = await backend.subscribe("a", "g")
    await queue.publish("a", {"_abe_router": "theirs"})
    (delivery,) = await subscription.fetch(1, 1)
    assert delivery.message.payload == {"_abe_router": "theirs"}
    await subscription.close()


async def test_routes_of_one_group_each_get_their_own_keys(backend):
    orders, payments = await backend.subscribe("orders.*", "g"), await backend.subscribe("payments.*", "g")
    for key in ("payments.settled", "orders.created"):
        await backend.publish(key, {"key": key})
    (order,) = await orders.fetch(1, 1)
    (payment,) = await payments.fetch(1, 1)
    assert (order.message.key, payment.message.key) == ("orders.created", "payments.settled")
    await orders.close()
    await payments.close()


async def test_a_message_of_another_program_goes_to_the_only_route_of_its_group(backend, queue):
    subscription = await backend.subscribe("orders.created", "billing")
    await queue.publish("whatever", {"total": 5})
    (delivery,) = await subscription.fetch(1, 1)
    assert (delivery.message.key, delivery.message.payload) == ("orders.created", {"total": 5})
    await subscription.close()


async def test_a_message_of_another_program_is_dropped_and_logged_if_its_group_has_several_routes(
    backend, queue, caplog
):
    first, second = await backend.subscribe("a", "g"), await backend.subscribe("b", "g")
    await queue.publish("a", {"whose": "?"})
    await backend.publish("a", {"whose": "a"})
    (delivery,) = await first.fetch(1, 1)
    assert delivery.message.payload == {"whose": "a"}
    assert "dropped a message with no key" in caplog.text
    await first.close()
    await second.close()


async def test_messages_are_read_only_on_demand(backend, queue):
    subscription = await backend.subscribe("#", "g")
    for number in range(3):
        await backend.publish("a", {"n": number})
    await asyncio.sleep(0)
    assert queue.queue.qsize() == 3
    await subscription.fetch(1, 1)
    assert queue.queue.qsize() == 2
    await subscription.close()


async def test_an_interrupted_fetch_returns_and_loses_nothing(backend):
    subscription = await backend.subscribe("#", "g")
    fetching = asyncio.create_task(subscription.fetch(1, 2 * HANG))
    await asyncio.sleep(0)
    subscription.interrupt()
    assert await fetching == []
    await backend.publish("a", {})
    assert len(await subscription.fetch(1, 1)) == 1
    await subscription.close()


async def test_a_released_message_goes_to_the_next_consumer_of_the_process(backend):
    await backend.publish("a", {"n": 1})
    before = await backend.subscribe("a", "g")
    (delivery,) = await before.fetch(1, 1)
    await before.settle([(delivery, RELEASED)])
    await before.close()
    after = await backend.subscribe("a", "g")
    (again,) = await after.fetch(1, 1)
    assert again.message == delivery.message
    await after.close()


async def test_messages_that_are_lost_at_the_end_are_logged(backend, caplog):
    await backend.publish("a", {"n": 1})
    subscription = await backend.subscribe("a", "g")
    (delivery,) = await subscription.fetch(1, 1)
    await subscription.settle([(delivery, RELEASED)])
    await subscription.close()
    await backend.close()
    assert "lost 1 messages that it delivered and no handler got" in caplog.text


async def test_a_provider_that_failed_is_read_again(backend, queue):
    subscription = await backend.subscribe("a", "g")
    await queue.queue.put(ConnectionError("gone"))
    with pytest.raises(BackendUnavailable, match="`acme`: ConnectionError: gone"):
        await subscription.fetch(1, 1)
    await backend.publish("a", {})
    assert len(await subscription.fetch(1, 1)) == 1
    assert queue.groups == ["g", "g"]
    await subscription.close()


async def test_the_error_of_a_failed_publish_names_the_provider(queue):
    async def publish(key, payload):
        raise RuntimeError("full")

    queue.publish = publish
    with pytest.raises(BackendError, match="`acme`: RuntimeError: full"):
        await AbstractBackend(queue, "acme").publish("a", {})


async def test_opening_an_adapted_provider_logs_its_missing_features_once(backend, caplog):
    await backend.open()
    await backend.open()
    assert caplog.text.count("at most once: no retries, no dead letters") == 1


async def test_a_failed_message_is_dropped_after_its_first_attempt(backend):
    seen, done = [], asyncio.Event()

    def listen(event):
        seen.append(event)
        if isinstance(event, DeadLettered):
            done.set()

    async def fail(payload):
        raise ValueError("no funds")

    route = Route("a", "g", handler_from(fail))
    with ThreadPoolExecutor() as threads:
        consumer = Consumer(route, backend, Events([((Event,), listen)]), revision="", threads=threads)
        running = asyncio.create_task(consumer.run())
        await backend.publish("a", {})
        await done.wait()
        consumer.stop()
        await running
    (dropped,) = [event for event in seen if isinstance(event, DeadLettered)]
    assert (dropped.attempts, dropped.kept) == (1, False)


async def test_table_of_several_routes_runs_on_an_adapted_provider(acme):
    backend = load_backend("acme")
    got, events = [], asyncio.Queue()

    def recording(name):
        async def handler(payload):
            got.append((name, payload["n"]))

        return handler_from(handler, name)

    router = Reconciler(backend, Events([((Handled,), events.put_nowait)]))
    routes = (
        Route("orders.*", "billing", recording("m:orders")),
        Route("payments.*", "billing", recording("m:payments")),
    )
    await router.apply(RouteTable(routes=routes))
    for number in range(20):
        await backend.publish("orders.created" if number % 2 else "payments.settled", {"n": number})
    for _ in range(20):
        await events.get()
    await router.stop()
    await backend.close()
    assert sorted(got, key=lambda g: g[1]) == [
        ("m:orders" if number % 2 else "m:payments", number) for number in range(20)
    ]


async def test_a_rate_holds_within_the_process(backend):
    assert (await backend.take_tokens("a/g", 1.0, 5)).granted == 1
    assert (await backend.take_tokens("a/g", 1.0, 5)).granted == 0


async def test_the_outputs_of_a_handler_are_published(backend):
    subscription = await backend.subscribe("a", "g")
    await backend.publish("a", {})
    (delivery,) = await subscription.fetch(1, 1)
    await subscription.settle([(delivery, Acked((new_message("b", b'{"n":1}'),)))])
    await subscription.close()
    after = await backend.subscribe("b", "other")
    (emitted,) = await after.fetch(1, 1)
    assert emitted.message.payload == {"n": 1}
    await after.close()


async def test_outputs_that_cannot_be_published_are_logged(backend, queue, caplog):
    async def publish(key, payload):
        raise RuntimeError("full")

    subscription = await backend.subscribe("a", "g")
    await backend.publish("a", {})
    (delivery,) = await subscription.fetch(1, 1)
    queue.publish = publish
    await subscription.settle([(delivery, Acked((new_message("b", b"1"),)))])
    assert "its outputs cannot be published: provider `acme`: RuntimeError: full" in caplog.text
    await subscription.close()
