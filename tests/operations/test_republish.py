"""Republishing a dead letter: what is shown, what stays masked, and that it happens once."""

from __future__ import annotations

import json

import pytest

from abe_router.backend import Dead, DeadLetter, Reason
from abe_router.backends import make_backend
from abe_router.errors import BackendUnavailable, PayloadInvalid
from abe_router.messages.message import Message
from abe_router.operations.access import load_table
from abe_router.operations.audit import Author, acts
from abe_router.operations.dead_letters import detail
from abe_router.operations.errors import OperationRefused
from abe_router.operations.republish import (
    draft_of,
    prepare_republication,
    republish,
    with_masked,
)
from tests.limits import HANG

ROUTE = "orders.created", "billing"
ADA = Author("ada", "a test")
SCHEMA = {
    "properties": {
        "id": {"type": "string"},
        "total": {"minimum": 0},
        "card": {"type": "string", "maxLength": 30, "x-sensitive": True},
        "cards": {"items": {"properties": {"number": {"x-sensitive": True}}}},
    }
}
CARDS = [{"number": 11, "name": "a"}, {"number": 22, "name": "b"}, {"number": 33, "name": "c"}]


@pytest.fixture
def table(tmp_path):
    (tmp_path / "order.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "routes.yaml").write_text(
        "backend: memory://\nschemas: .\nroutes: {orders.created: {schema: order.json, id: /id, dedupe: 1h,"
        " consumers: {billing: 'os:getcwd'}}}"
    )
    return load_table(tmp_path / "routes.yaml")


def dead_letter(body: bytes, headers: dict[str, str] | None = None, id: str = "17") -> DeadLetter:
    message = Message("ord_1", "orders.created", body, headers or {}, 1.0)
    return DeadLetter("/".join(ROUTE), message, Reason("failed", "KeyError", ""), 1, 1, 1.0, 2.0, id=id)


def payload(dead: DeadLetter, table) -> dict:
    return json.loads(bytes(draft_of(dead, table).payload))


def test_draft_has_references_in_place_of_masked_values(table):
    dead = dead_letter(
        b'{"id": "x", "total": 1.10, "card": "4929", "cards": [{"number": 11}]}', {"abe-cause": "c", "a": "b"}
    )
    draft = draft_of(dead, table)
    assert bytes(draft.payload) == (
        b'{"id":"x","total":1.10,"card":"(masked /card)","cards":[{"number":"(masked /cards/0/number)"}]}'
    )
    assert draft.masked == ("/card", "/cards/0/number")
    assert (draft.headers, draft.cause) == ({"a": "b"}, "ord_1")
    assert with_masked(dead, table, bytes(draft.payload)) == (
        b'{"id":"x","total":1.10,"card":"4929","cards":[{"number":11}]}'
    )


def test_reference_stands_for_its_value_after_items_were_removed_or_moved(table):
    dead = dead_letter(json.dumps({"id": "x", "cards": CARDS}).encode())
    cards = payload(dead, table)["cards"]
    changed = json.dumps({"id": "x", "cards": [cards[2], cards[1]]}).encode()
    assert json.loads(with_masked(dead, table, changed))["cards"] == [CARDS[2], CARDS[1]]


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "(masked /card)"},
        {"note": ["(masked /card)"]},
        {"card": "(masked)"},
        {"card": ["(masked /card)"]},
        {"cards": [{"number": {"x": "(masked)"}}]},
    ],
)
def test_masked_value_goes_to_no_place_that_shows_it_and_is_not_written_as_its_mask(table, changed):
    dead = dead_letter(b'{"id": "x", "card": "4929"}')
    with pytest.raises(OperationRefused):
        with_masked(dead, table, json.dumps(changed).encode())


def test_text_like_a_mask_is_a_value_where_nothing_is_masked(table):
    dead = dead_letter(b'{"id": "(masked)", "total": 1}')
    assert with_masked(dead, table, bytes(draft_of(dead, table).payload)) == b'{"id":"(masked)","total":1}'


def test_body_that_is_not_json_is_shown_only_if_no_schema_masks_values(table, tmp_path):
    dead = dead_letter(b'{"total": 1')
    assert (draft_of(dead, table).text, draft_of(dead, table).masked) == ("", ())
    (tmp_path / "order.json").write_text("{}")
    open_table = load_table(tmp_path / "routes.yaml")
    assert draft_of(dead, open_table).text == '{"total": 1'
    assert prepare_republication(dead, open_table, b'{"id": "x"}', {}).changed == ("",)


def test_changes_are_named_by_pointers_and_headers_without_values(table):
    dead = dead_letter(
        b'{"id": "x", "total": -1, "card": "4929", "cards": [{"number": 1}, {}]}', {"a": "1", "gone": "2"}
    )
    given = payload(dead, table) | {"total": 1, "card": "5105", "new": {"deep": 1}, "cards": [{"number": 5}]}
    found = prepare_republication(dead, table, json.dumps(given).encode(), {"a": "1", "Abe-Cause": "forged"})
    assert found.changed == (
        *("/total", "/card", "/cards/0/number", "/cards/1", "/new"),
        "header gone",
    )
    assert found.message.headers == {"a": "1", "abe-cause": "ord_1"}
    assert json.loads(found.message.body)["card"] == "5105"
    with pytest.raises(PayloadInvalid):
        prepare_republication(dead, table, b'{"id": "x", "total": -1}', {})


async def dying(backend, body: bytes) -> DeadLetter:
    """Return a dead letter that the backend has."""
    subscription = await backend.subscribe(*ROUTE)
    await backend.append([Message("ord_1", "orders.created", body, {}, 1.0)])
    (delivery,) = await subscription.fetch(1, HANG)
    await subscription.settle([(delivery, Dead(dead_letter(body)))])
    await subscription.close()
    return (await backend.dead_letters(*ROUTE, limit=10))[0]


async def stored(backend) -> list[str]:
    return [each.message.id for each in await backend.peek("orders.created", None, limit=10)]


async def test_message_is_published_once_under_a_new_id_and_then_the_dead_letter_is_purged(shared, table):
    backend = shared()
    dead = await dying(backend, b'{"id": "ord_1", "total": -1}')
    republication = prepare_republication(dead, table, b'{"id": "ord_1", "total": 1}', {})
    kept = await republish(backend, republication, author=ADA)
    assert (kept.duplicate, kept.purged, kept.changed) == (False, False, ("/total",))
    assert len(await backend.dead_letters(*ROUTE, limit=10)) == 1
    other = prepare_republication(dead, table, b'{"id": "ord_1", "total": 2}', {})
    again = await republish(backend, other, author=ADA, why="the total was wrong", purge=True)
    assert (again.id, again.duplicate, again.purged) == (kept.id, True, True)
    assert await backend.dead_letters(*ROUTE, limit=10) == []
    assert kept.id != "ord_1"
    assert [id for id in await stored(backend) if id != "ord_1"] == [kept.id]
    gone = await republish(backend, other, author=ADA, purge=True)
    assert (gone.duplicate, gone.purged, gone.failure) == (True, False, "it was gone")
    last, first = (await acts(backend))[1:]
    assert (last.action, last.target) == ("dead republish", f"orders.created/billing {dead.id}")
    assert (last.author, last.why) == ("ada", "the total was wrong")
    assert first.result == f"published {kept.id}; changed /total"
    assert last.result == f"{kept.id} was accepted before; purged"


async def test_repetition_after_a_lost_answer_neither_loses_nor_duplicates(table, monkeypatch):
    async with make_backend("memory://") as backend:
        dead = await dying(backend, b'{"id": "ord_1"}')
        republication = prepare_republication(dead, table, b'{"id": "ord_1", "total": 1}', {})
        append_once = backend.append_once

        async def lost(windowed):
            await append_once(windowed)
            raise BackendUnavailable("the answer was lost")

        async def away(*_):
            raise BackendUnavailable("connection refused")

        with monkeypatch.context() as patched:
            patched.setattr(backend, "append_once", lost)
            with pytest.raises(BackendUnavailable):
                await republish(backend, republication, author=ADA, purge=True)
        assert len(await backend.dead_letters(*ROUTE, limit=10)) == 1
        with monkeypatch.context() as patched:
            patched.setattr(backend, "purge", away)
            failed = await republish(backend, republication, author=ADA, purge=True)
        assert (failed.purged, failed.failure) == (False, "connection refused")
        found = await republish(backend, republication, author=ADA, purge=True)
        assert (found.duplicate, found.purged) == (True, True)
        assert (await stored(backend)).count(found.id) == 1


@pytest.mark.parametrize(
    "body", [b'["4929"]', b'"{\\"card\\": \\"4929\\"}"', b'{"id": "x", "cards": "4929"}']
)
def test_draft_of_a_payload_without_the_shape_of_its_schema_shows_no_secret_and_restores_it(table, body):
    dead = dead_letter(body)
    draft = draft_of(dead, table)
    assert b"4929" not in bytes(draft.payload)
    assert json.loads(with_masked(dead, table, bytes(draft.payload))) == json.loads(body)


def test_fields_of_a_foreign_entry_are_masked_and_not_sent_again(table):
    dead = dead_letter(b"", {"card": "4929", "4111": "x"})
    assert detail(dead, table).headers == {"card": "(masked)", "(masked)": "(masked)"}
    assert draft_of(dead, table).headers == {}
    assert detail(dead_letter(b'{"id": "x"}', {"a": "b"}), table).headers == {"a": "b"}


def test_fields_of_a_foreign_entry_are_shown_if_no_schema_masks_values(table, tmp_path):
    (tmp_path / "order.json").write_text("{}")
    open_table = load_table(tmp_path / "routes.yaml")
    dead = dead_letter(b"", {"note": "4929"})
    assert detail(dead, open_table).headers == draft_of(dead, open_table).headers == {"note": "4929"}
