"""Routes that emit: the answer of a handler becomes a message."""

from __future__ import annotations

from datetime import datetime, tzinfo

import pytest

from abe_router.observe.events import DeadLettered, Handled
from abe_router.routing.contract import MessageContract
from abe_router.routing.policies import CAUSE, HOPS, MAX_HOPS, Batch, Emit, RetryPolicy
from abe_router.schema import SchemaFolder

from .conftest import make_route


async def test_answer_is_published_with_the_headers_of_its_cause(running):
    got = []

    async def price(payload):
        return {"total": payload["qty"] * 2}

    async def bill(payload, message):
        got.append((payload, dict(message.headers)))

    await running.route(
        make_route(price, emit=Emit("orders.priced")), make_route(bill, key="orders.priced", group="bill")
    )
    cause = await running.backend.publish("orders.created", {"qty": 3}, headers={"trace": "t1"})

    await running.log.wait_for(Handled, 2)
    assert got == [({"total": 6}, {"trace": "t1", HOPS: "1", CAUSE: cause.id})]


async def test_emitted_message_is_another_event_than_its_cause(running):
    got = []

    async def price(payload):
        return {"total": 6}

    async def bill(payload, message):
        got.append(dict(message.headers))

    await running.route(
        make_route(price, emit=Emit("orders.priced")), make_route(bill, key="orders.priced", group="bill")
    )
    names = ["specversion", "id", "source", "type", "time", "subject", "dataschema", "datacontenttype"]
    event = {f"ce-{name}": "1" for name in names} | {"Ce-Id": "2"}
    await running.backend.publish("orders.created", {}, headers={**event, "ce-partitionkey": "5"})
    await running.log.wait_for(Handled, 2)
    assert got[0].keys() == {"ce-partitionkey", HOPS, CAUSE}


async def test_no_answer_emits_nothing(running):
    async def price(payload):
        return None

    await running.route(make_route(price, emit=Emit("orders.priced")))
    await running.publish("orders.created", 1)
    await running.log.wait_for(Handled)

    late = await running.backend.subscribe("orders.priced", "late")
    assert await late.fetch(1, 0) == []


async def test_answer_that_breaks_its_schema_is_a_failure(running, tmp_path):
    number = SchemaFolder(tmp_path).inline({"type": "number"}, "number")

    async def price(payload):
        return "twelve"

    await running.route(
        make_route(
            price, emit=Emit("orders.priced", MessageContract((number,))), retry=RetryPolicy(attempts=1)
        )
    )
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error.startswith("PayloadInvalid: payload for `orders.priced` is invalid")


async def test_cycle_of_emitting_routes_ends_in_a_dead_letter(running):
    async def again(payload):
        return payload + 1

    await running.route(make_route(again, emit=Emit("orders.created")))
    await running.publish("orders.created", 0)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error.startswith("TooManyHops")
    (dead_letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert dead_letter.message.payload == MAX_HOPS


@pytest.mark.parametrize("hops", ["1" * 5_000, "many", "²"])
async def test_malformed_hop_count_counts_as_zero(running, hops):
    async def price(payload):
        return payload

    await running.route(make_route(price, emit=Emit("orders.priced")))
    await running.backend.publish("orders.created", 1, headers={HOPS: hops})

    await running.log.wait_for(Handled)
    (emitted,) = await (await running.backend.subscribe("orders.priced", "late")).fetch(1, 1)
    assert emitted.message.headers[HOPS] == "1"


async def test_answer_that_raises_when_encoded_is_a_failure(running):
    class Nowhere(tzinfo):
        def utcoffset(self, moment):
            raise LookupError("no such zone")

    async def price(payload):
        return datetime(2020, 1, 1, tzinfo=Nowhere())

    await running.route(make_route(price, emit=Emit("orders.priced"), retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error == "LookupError: no such zone"


async def test_batch_emits_one_message_for_each_answer(running):
    async def price(payloads):
        return [p * 10 if p else None for p in payloads]

    await running.publish("orders.created", 0, 1, 2)
    await running.route(make_route(price, batch=Batch(size=3), emit=Emit("orders.priced")))
    await running.log.wait_for(Handled, 3)

    late = await running.backend.subscribe("orders.priced", "late")
    assert [d.message.payload for d in await late.fetch(10, 1)] == [10, 20]
