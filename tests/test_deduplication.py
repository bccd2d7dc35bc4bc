"""The source of the id of a message, and its valid values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abe_router.errors import IdInvalid, PublishError
from abe_router.messages.dedupe import MAX_ID, Deduplication
from abe_router.messages.message import decode, encode

OF_PAYLOAD = Deduplication(600.0, "/order/id")
OF_HEADER = Deduplication(600.0, "Idempotency-Key")


@pytest.mark.parametrize(
    ("json", "id"),
    [
        (b'"A-7"', "A-7"),
        (b"7", "7"),
        (b"-0", "0"),
        (b"7.0", "7"),
        (b"7e2", "700"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"),
        ('"é ☃\\n"'.encode(), "é ☃\n"),
    ],
)
def test_text_or_an_integer_is_an_id(json, id):
    assert OF_PAYLOAD.id("orders.created", {"order": {"id": decode(json)}}, {}) == id


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1.5, "a fraction"),
        (2.0**60, "too large to be exact"),
        (["A-7"], "an array"),
        ({}, "an object"),
        ("", "empty"),
        ("x" * (MAX_ID + 1), "256 characters, over 255"),
    ],
)
def test_error_for_an_invalid_id_names_the_key_and_the_pointer(value, why):
    with pytest.raises(IdInvalid, match=rf"`orders.created` .* value at /order/id .*{why}") as caught:
        OF_PAYLOAD.id("orders.created", {"order": {"id": value}}, {})
    assert caught.value.key == "orders.created"
    assert isinstance(caught.value, PublishError)


def test_message_without_its_id_is_refused():
    with pytest.raises(IdInvalid, match="value at /order/id is to be its id, and is not there"):
        OF_PAYLOAD.id("orders.created", {"order": {}}, {"Idempotency-Key": "A-7"})
    with pytest.raises(IdInvalid, match="header `Idempotency-Key` is to be its id, and is not there"):
        OF_HEADER.id("orders.created", {"order": {"id": "A-7"}}, {})


def test_case_of_a_header_counts_only_where_two_differ_by_it():
    assert OF_HEADER.id("k", 1, {"idempotency-key": "A-7", "other": "x"}) == "A-7"
    assert OF_HEADER.id("k", 1, {"idempotency-key": "A-7", "Idempotency-Key": "A-8"}) == "A-8"
    with pytest.raises(IdInvalid, match="header `Idempotency-Key` is to be its id, and is not there"):
        OF_HEADER.id("k", 1, {"idempotency-key": "A-7", "IDEMPOTENCY-KEY": "A-8"})


def test_id_is_read_from_a_header():
    assert OF_HEADER.id("orders.created", {}, {"Idempotency-Key": "A-7"}) == "A-7"


def test_explicit_id_that_differs_from_the_payload_is_refused():
    assert OF_PAYLOAD.id("orders.created", {"order": {"id": 7}}, {}, "7") == "7"
    with pytest.raises(IdInvalid, match="value at /order/id is its id, and the one given, `8`, is another"):
        OF_PAYLOAD.id("orders.created", {"order": {"id": 7}}, {}, "8")


def test_error_for_an_invalid_id_does_not_show_the_payload():
    with pytest.raises(IdInvalid) as caught:
        OF_PAYLOAD.id("orders.created", {"order": {"id": "secret" * 100}}, {}, "8")
    assert "secret" not in str(caught.value)


def test_without_a_source_only_an_explicit_id_is_deduplicated():
    given_alone = Deduplication(600.0)
    assert given_alone.id("orders.created", {}, {}) is None
    assert given_alone.id("orders.created", {}, {}, "A-7") == "A-7"
    assert (given_alone.window_of(None), given_alone.window_of("A-7")) == (0.0, 600.0)
    assert OF_PAYLOAD.window_of(None) == 600.0
    with pytest.raises(IdInvalid, match="empty"):
        given_alone.id("orders.created", {}, {}, "")


def test_combined_rules_have_the_longest_window_and_the_only_source():
    assert Deduplication.combined([]) is None
    both = Deduplication.combined([Deduplication(60.0), Deduplication(0.0, "/id"), Deduplication(5.0)])
    assert both == Deduplication(60.0, "/id")


@given(st.integers() | st.text(min_size=1, max_size=MAX_ID))
def test_id_is_the_same_after_encoding_and_decoding(value):
    rule = Deduplication(1.0, "/id")
    before = rule.id("a", {"id": value}, {})
    assert rule.id("a", decode(encode({"id": value})), {}) == before == str(value)
