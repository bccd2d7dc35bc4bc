"""Publishing checks a message against the table before it reaches the backend."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import (
    IdInvalid,
    KeyInvalid,
    NoRoute,
    PayloadInvalid,
    PayloadMalformed,
    PayloadUnencodable,
)
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.message import Duplicate, Message
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import prepare, publish
from abe_router.schema import SchemaFolder


@pytest.fixture
def table(tmp_path):
    schemas = SchemaFolder(tmp_path)
    order = schemas.inline(
        {"type": "object", "required": ["id"], "properties": {"total": {"minimum": 0}}}, "order"
    )
    small = schemas.inline({"properties": {"total": {"maximum": 10}}}, "small")
    bindings = (SchemaBinding("orders.created", order), SchemaBinding("orders.#", small))
    return RouteTable(keys=("orders.created", "orders.#"), bindings=bindings)


async def test_a_valid_payload_is_appended(table):
    backend = MemoryBackend()
    message = await publish(table, backend, "orders.created", {"id": 1}, headers={"a": "b"}, id="x")

    handle = await backend.subscribe("orders.created", "billing")
    (delivery,) = await handle.fetch(10, 1)
    assert (message.id, message.headers) == ("x", {"a": "b"})
    assert delivery.message.body == b'{"id":1}'


async def test_an_invalid_payload_raises_every_violation_of_every_schema(table):
    with pytest.raises(PayloadInvalid) as caught:
        await publish(table, MemoryBackend(), "orders.created", {"total": 11})
    assert [(v.pointer, v.keyword) for v in caught.value.violations] == [
        ("", "required"),
        ("/total", "maximum"),
    ]


async def test_a_publish_that_waits_for_the_backend_keeps_no_decoded_payload(table):
    backend, waiting = MemoryBackend(), asyncio.Event()
    payload = {"id": 1, "lines": ["of a payload that nothing else has"]}

    async def append(_):
        found = [each for each in gc.get_objects() if type(each) is list and each == payload["lines"]]
        assert found == [payload["lines"]]
        waiting.set()

    backend.append = append
    await publish(table, backend, "orders.created", payload)
    assert waiting.is_set()


def test_the_error_for_an_unknown_key_suggests_the_closest_one(table):
    with pytest.raises(NoRoute, match=r"did you mean `orders\.created`"):
        prepare(table, "order.created", b"{}")


@pytest.mark.parametrize("catch_all", ["#", "#.paid", "*.#", "*.#.paid"])
def test_a_key_that_only_a_catch_all_matches_is_unknown_even_with_a_schema(table, catch_all):
    bindings = (SchemaBinding(catch_all, table.bindings[1].schema),)
    routes = RouteTable(keys=("orders.paid", catch_all), bindings=bindings)
    with pytest.raises(NoRoute, match=r"did you mean `orders\.paid`"):
        prepare(routes, "ordres.paid", b"{}")
    assert prepare(routes, "orders.paid", b"{}").key == "orders.paid"
    assert prepare(RouteTable(keys=(catch_all,), unrouted="allow"), "ordres.paid", b"{}").key == "ordres.paid"


@pytest.mark.parametrize("pattern", ["orders.#", "orders.*", "*.paid", "*.*", "orders.#.paid"])
def test_a_key_that_another_pattern_matches_is_known(pattern):
    assert prepare(RouteTable(keys=(pattern,)), "orders.paid", b"{}").key == "orders.paid"


def test_an_unknown_key_can_be_allowed_by_the_caller_or_the_table(table):
    assert prepare(table, "other", b"{}", allow_unrouted=True).key == "other"
    assert prepare(RouteTable(unrouted="allow"), "other", b"{}").key == "other"


def test_an_invalid_key_and_an_invalid_body_are_refused(table):
    with pytest.raises(KeyInvalid):
        prepare(table, "orders.*", b"{}", allow_unrouted=True)
    with pytest.raises(PayloadMalformed):
        prepare(table, "orders.created", b"{")


async def test_a_payload_that_cannot_be_json_is_refused(table):
    with pytest.raises(PayloadUnencodable):
        await publish(table, MemoryBackend(), "orders.created", {"id": object()})


def test_the_checked_bytes_are_sent_unchanged(table):
    body = b'{"id": 123456789012345678901234567890, "total": 1.0}'
    assert prepare(table, "orders.created", body).body == body


@pytest.fixture
def deduplicated(table):
    deduplications = {"orders.created": Deduplication(600.0, "/id"), "orders.#": Deduplication(60.0)}
    return replace(table, deduplications=deduplications)


async def received(backend):
    handle = await backend.subscribe("#", "billing")
    return [delivery.message.id for delivery in await handle.fetch(100, 0)]


async def test_a_message_that_is_published_again_is_a_duplicate_and_not_kept(deduplicated):
    backend = MemoryBackend()
    first = await publish(deduplicated, backend, "orders.created", {"id": 7})
    again = await publish(deduplicated, backend, "orders.created", {"id": 7, "total": 1})
    other = await publish(deduplicated, backend, "orders.created", {"id": 8})
    assert (first.id, again.id, other.id) == ("7", "7", "8")
    assert [isinstance(each, Duplicate) for each in (first, again, other)] == [False, True, False]
    assert again.payload == {"id": 7, "total": 1}
    assert await received(backend) == ["7", "8"]


async def test_the_same_id_under_another_key_is_no_duplicate(deduplicated):
    backend = MemoryBackend()
    for key in ("orders.created", "orders.paid"):
        assert not isinstance(await publish(deduplicated, backend, key, {"id": 7}, id="7"), Duplicate)
    assert isinstance(await publish(deduplicated, backend, "orders.paid", {"id": 7}, id="7"), Duplicate)


async def test_messages_without_an_id_are_no_duplicates(deduplicated):
    backend = MemoryBackend()
    for _ in range(3):
        assert not isinstance(await publish(deduplicated, backend, "orders.paid", {}), Duplicate)
    assert len(await received(backend)) == 3


async def test_a_message_without_a_valid_id_is_refused_after_its_schema_is_checked(deduplicated):
    backend = MemoryBackend()
    with pytest.raises(PayloadInvalid):
        await publish(deduplicated, backend, "orders.created", {})
    with pytest.raises(IdInvalid, match="/id"):
        await publish(deduplicated, backend, "orders.created", {"id": [7]})
    with pytest.raises(IdInvalid, match="another"):
        await publish(deduplicated, backend, "orders.created", {"id": 7}, id="8")
    assert await received(backend) == []


async def test_an_id_without_a_window_is_not_remembered(table):
    named, backend = replace(table, deduplications={"#": Deduplication(0.0, "/id")}), MemoryBackend()
    for _ in range(2):
        message = await publish(named, backend, "orders.created", {"id": 7})
        assert (message.id, type(message)) == ("7", Message)
    assert await received(backend) == ["7", "7"]


async def test_backend_publish_deduplicates_with_a_window():
    backend = MemoryBackend()
    sent = [await backend.publish("orders.created", n, id="7", window=60.0) for n in range(2)]
    assert [type(message) for message in sent] == [Message, Duplicate]
    assert await received(backend) == ["7"]
