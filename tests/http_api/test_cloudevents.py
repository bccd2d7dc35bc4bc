"""The CloudEvents reader: whatever a client sends, it is a message or a malformed payload."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.errors import PayloadMalformed
from abe_router.http.cloudevents import BinaryEvent, StructuredEvent, is_json_type, read_batch, read_headers

ATTRIBUTES = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "orders.paid"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["specversion", "id", "source", "type", "data", "data_base64", "datacontenttype", "x"]
)


def generated(_: str) -> bool:
    return False


@settings(max_examples=50)
@given(st.dictionaries(NAMES, JSON, max_size=3))
def test_any_object_is_an_event_or_malformed(members: dict[str, Any]) -> None:
    text = json.dumps({**ATTRIBUTES, **members}).encode()
    with suppress(PayloadMalformed):
        content = StructuredEvent(1, text, generated).parse(None, {})
        assert content.key == {**ATTRIBUTES, **members}["type"]
        assert all(isinstance(value, str) for value in content.headers.values())


@pytest.mark.parametrize("value", [True, False, 0, 7])
@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "time", "dataschema", "datacontenttype"])
def test_attribute_of_the_specification_is_text(name: str, value: object) -> None:
    text = json.dumps({**ATTRIBUTES, "x": value, name: value}).encode()
    with pytest.raises(PayloadMalformed, match=f"`{name}` is not text$"):
        StructuredEvent(1, text, generated).parse(None, {})


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_bytes_are_an_event_or_malformed(noise: bytes, at: int) -> None:
    text = json.dumps({**ATTRIBUTES, "data_base64": "e30=", "data": None}).encode()
    for damaged in (noise, text[:at] + noise + text[at:], text[:at] + noise + text[at + len(noise) :]):
        with suppress(PayloadMalformed):
            StructuredEvent(1, damaged, generated).parse(None, {})
        with suppress(PayloadMalformed):
            for event in read_batch(b"[%b]" % damaged, generated, 100) or []:
                event.parse(None, {})


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=8),
            st.text() | st.lists(st.text() | st.dictionaries(st.text(max_size=8), st.none()), max_size=3),
            max_size=4,
        ),
        max_size=8,
    )
)
def test_batch_is_split_into_its_events(events: list[dict[str, Any]]) -> None:
    for indent in (None, 2):
        found = read_batch(json.dumps(events, indent=indent).encode(), generated, len(events))
        assert found is not None
        assert [json.loads(event.text) for event in found] == events
    if events:
        assert read_batch(json.dumps(events).encode(), generated, len(events) - 1) is None


@given(
    st.lists(st.tuples(st.sampled_from([b"ce-id", b"ce-x", b"CE-Type", b"other"]), st.binary(max_size=20)))
)
def test_any_headers_are_attributes_or_malformed(raw: list[tuple[bytes, bytes]]) -> None:
    with suppress(PayloadMalformed):
        attributes = {**ATTRIBUTES, **read_headers(raw)}
        BinaryEvent(attributes, "application/json", b"1", generated).parse(None, {})


@given(st.text(alphabet=st.characters(exclude_categories=["C"]), min_size=1, max_size=20))
def test_percent_encoded_attribute_is_read_as_it_was(value: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in value.encode()).encode()
    assert read_headers([(b"ce-subject", encoded)]) == {"subject": value}


@pytest.mark.parametrize("value", [b'"\xff"', b'"\\ud800"', b"nul", b"[" * 5000 + b"]" * 5000])
@pytest.mark.parametrize("name", [b"data_base64", b"subject"])
def test_value_that_is_not_json_is_malformed(name: bytes, value: bytes) -> None:
    text = json.dumps(ATTRIBUTES).encode().replace(b"}", b', "%b": %b}' % (name, value))
    with pytest.raises(PayloadMalformed):
        StructuredEvent(1, text, generated).parse(None, {})


@pytest.mark.parametrize(
    ("media_type", "is_json"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("text/json", True),
        ("application/vnd.shop.v1+json", True),
        ("application/jsonl", False),
        ("application/x-json+xml", False),
        ("json", False),
        ("", False),
    ],
)
def test_media_types_of_json(media_type: str, is_json: bool) -> None:
    assert is_json_type(media_type) is is_json
