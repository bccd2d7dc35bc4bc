"""Publishing checks against the table before anything reaches the backend."""

from __future__ import annotations

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import KeyInvalid, NoRoute, PayloadInvalid, PayloadMalformed, PayloadUnencodable
from abe_router.publish import prepare, publish
from abe_router.route import Contract, RouteTable
from abe_router.schema import SchemaFolder


@pytest.fixture
def table(tmp_path):
    schemas = SchemaFolder(tmp_path)
    order = schemas.inline(
        {"type": "object", "required": ["id"], "properties": {"total": {"minimum": 0}}}, "order"
    )
    small = schemas.inline({"properties": {"total": {"maximum": 10}}}, "small")
    contracts = (Contract("orders.created", order), Contract("orders.#", small))
    return RouteTable(keys=("orders.created", "orders.#"), contracts=contracts)


async def test_a_good_payload_is_appended(table):
    backend = MemoryBackend()
    message = await publish(table, backend, "orders.created", {"id": 1}, headers={"a": "b"}, id="x")

    handle = await backend.subscribe("orders.created", "billing")
    (delivery,) = await handle.fetch(10, 1)
    assert (message.id, message.headers) == ("x", {"a": "b"})
    assert delivery.message.body == b'{"id":1}'


async def test_a_bad_payload_names_every_violation_of_every_schema(table):
    with pytest.raises(PayloadInvalid) as caught:
        await publish(table, MemoryBackend(), "orders.created", {"total": 11})
    assert [(v.pointer, v.keyword) for v in caught.value.violations] == [
        ("", "required"),
        ("/total", "maximum"),
    ]


def test_an_unknown_key_is_refused_with_the_nearest_one(table):
    with pytest.raises(NoRoute, match=r"did you mean `orders\.created`"):
        prepare(table, "order.created", b"{}")


def test_an_unknown_key_may_be_allowed_by_the_caller_or_the_table(table):
    assert prepare(table, "other", b"{}", allow_unrouted=True).key == "other"
    assert prepare(RouteTable(unrouted="allow"), "other", b"{}").key == "other"


def test_what_is_not_a_key_or_not_json_is_refused(table):
    with pytest.raises(KeyInvalid):
        prepare(table, "orders.*", b"{}", allow_unrouted=True)
    with pytest.raises(PayloadMalformed):
        prepare(table, "orders.created", b"{")


async def test_a_payload_without_json_form_is_refused(table):
    with pytest.raises(PayloadUnencodable):
        await publish(table, MemoryBackend(), "orders.created", {"id": object()})


def test_the_bytes_that_were_checked_are_the_bytes_that_are_sent(table):
    body = b'{"id": 123456789012345678901234567890, "total": 1.0}'
    assert prepare(table, "orders.created", body).body == body
