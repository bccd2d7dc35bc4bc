"""Valid payloads, and their encoding without change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, model_serializer

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import IdInvalid, KeyInvalid, PayloadMalformed, PayloadUnencodable
from abe_router.messages.message import (
    MAX_BYTES,
    MAX_DEPTH,
    _is_text_too_deep,
    decode,
    encode,
    new_id,
    new_message,
)
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import prepare

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_bodies_that_are_kept_take_little_more_memory_than_their_bytes():
    program = f"""
from abe_router.messages.message import encode_for_check
def used():
    return int(open("/proc/self/statm").read().split()[1]) * {os.sysconf("SC_PAGE_SIZE")}
before = used()
kept = [encode_for_check({{"id": number, "text": "x" * 100}})[0] for number in range(20_000)]
print((used() - before) / sum(map(len, kept)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3


@given(json_values)
def test_decoding_returns_the_encoded_value(value):
    assert decode(encode(value)) == value


@pytest.mark.parametrize("value", [float("nan"), [1, float("inf")], {"a": (-float("inf"),), "b": None}])
def test_nan_and_infinity_are_refused(value):
    with pytest.raises(PayloadUnencodable, match="NaN"):
        encode(value)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "sNaN12", "Infinity"])
def test_decimal_nan_and_infinity_are_refused(value):
    with pytest.raises(PayloadUnencodable, match="NaN"):
        encode({"price": Decimal(value)})


async def test_backend_publish_refuses_a_decimal_nan():
    backend = MemoryBackend()
    with pytest.raises(PayloadUnencodable, match="NaN"):
        await backend.publish("orders.created", Decimal("NaN"))
    assert await (await backend.subscribe("orders.created", "billing")).fetch(1, 0) == []


def test_nan_and_infinity_as_text_are_accepted():
    assert encode({"NaN": "Infinity", "price": Decimal("1.10")}) == b'{"NaN":"Infinity","price":1.10}'


class Line(BaseModel):
    price: Decimal | None = None
    weight: float | None = None


class Invoice(BaseModel):
    number: int = Field(alias="no")
    at: datetime
    lines: list[Line]


@dataclass
class Batch:
    invoices: list[Invoice]


INVOICE = Invoice(no=1, at=datetime(2026, 1, 2, tzinfo=UTC), lines=[Line(price=Decimal("1.10"))])
INVOICE_JSON = {"no": 1, "at": "2026-01-02T00:00:00Z", "lines": [{"price": "1.10", "weight": None}]}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (INVOICE, INVOICE_JSON),
        ({"invoice": INVOICE}, {"invoice": INVOICE_JSON}),
        (Batch([INVOICE]), {"invoices": [INVOICE_JSON]}),
        (RootModel[list[int]]([1, 2]), [1, 2]),
    ],
)
def test_pydantic_model_is_encoded_as_its_json_form_by_alias(payload, expected):
    assert decode(encode(payload)) == expected


@pytest.mark.parametrize("other", [1, 2**70])
def test_nan_in_a_model_is_refused(other):
    with pytest.raises(PayloadUnencodable, match="NaN"):
        encode({"other": other, "line": Line(weight=float("nan"))})


class CloudEvent:
    """An event as both generations of the CloudEvents SDK have it."""

    def __init__(self, attributes, data):
        self._attributes, self._data = attributes, data

    def get_attributes(self):
        return self._attributes

    def get_data(self):
        return self._data


ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order"}


@pytest.mark.parametrize(
    ("data", "member"),
    [({"total": 5}, {"data": {"total": 5}}), (b"\x00", {"data_base64": "AA=="}), (None, {})],
)
def test_cloud_event_is_encoded_in_structured_mode(data, member):
    event = CloudEvent({**ATTRIBUTES, "time": datetime(2026, 1, 2, tzinfo=UTC)}, data)
    expected = {**ATTRIBUTES, "time": "2026-01-02T00:00:00Z", **member}
    assert decode(encode(event)) == expected
    assert decode(encode([event, event])) == [expected, expected]


def test_model_that_cannot_be_dumped_is_refused_with_its_error():
    class Broken(BaseModel):
        @model_serializer
        def dump(self):
            raise KeyError("total")

    with pytest.raises(PayloadUnencodable, match=r"Broken cannot be encoded: .*total"):
        encode(Broken())


def test_other_objects_are_refused():
    with pytest.raises(PayloadUnencodable, match="objects of type object have no JSON form"):
        encode({"a": object()})


def test_none_is_a_payload():
    assert encode({"a": None}) == b'{"a":null}'


@pytest.mark.parametrize("value", [object(), {"a": print}, {(1, 2): 3}])
def test_value_without_a_json_form_is_refused(value):
    with pytest.raises(PayloadUnencodable, match="not JSON"):
        encode(value)


def test_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(PayloadUnencodable):
        encode(loop)


def test_integers_stay_exact_beyond_64_bits():
    assert decode(b"123456789012345678901234567890") == 123456789012345678901234567890


def test_encode_and_decode_enforce_the_size_limit():
    with pytest.raises(PayloadUnencodable, match="over the limit"):
        encode("x" * MAX_BYTES)
    with pytest.raises(PayloadMalformed, match="over the limit"):
        decode(b'"' + b"x" * MAX_BYTES + b'"')
    assert len(encode("x" * (MAX_BYTES - 2))) == MAX_BYTES


def depth_of(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth_of, parts), default=0)


@given(json_values, st.lists(st.sampled_from(["list", "object", "text"]), min_size=122, max_size=130))
def test_depth_limit_is_exact_for_what_is_sent_and_for_what_comes(value, levels):
    for kind in levels:
        value = {"list": [0, value, []], "object": {"": value}, "text": {'say "[{\\': value, "}": "]"}}[kind]
    body = json.dumps(value).encode()
    if depth_of(value) <= MAX_DEPTH:
        assert decode(body) == decode(encode(value)) == value
        return
    with pytest.raises(PayloadMalformed, match="nested deeper than 128 levels"):
        decode(body)
    with pytest.raises(PayloadUnencodable, match="nested deeper than 128 levels"):
        encode(value)


class Scanned(bytes):
    """A body that counts the calls which look at each of its bytes."""

    def __new__(cls, body):
        self = super().__new__(cls, body)
        self.scans = []
        return self

    def translate(self, table, delete):
        self.scans.append("translate")
        return bytes(self).translate(table, delete)

    def replace(self, old, new):
        self.scans.append("replace")
        return bytes(self).replace(old, new)

    def split(self, mark):
        self.scans.append("split")
        return bytes(self).split(mark)


@pytest.mark.parametrize(
    ("item", "scans"),
    [
        (b'{"sku":"A-100","lines":[1]}', ["translate"]),
        (b'{"sku":"{[","b":"","c":"]"}', ["translate"]),
        (b'{"sku":"say \\"[\\"\\n"}', ["translate", "replace"]),
    ],
)
def test_depth_of_a_large_body_takes_one_scan_and_two_with_escapes(item, scans):
    flat = Scanned(b"[" + b",".join([item] * 1000) + b"]")
    assert not _is_text_too_deep(flat)
    assert flat.scans == scans
    deep = Scanned(b"[" * 127 + item + b"," + flat + b"]" * 127)
    assert _is_text_too_deep(deep)
    assert deep.scans == scans
    assert not _is_text_too_deep(b"[" * 126 + item + b"," + flat[1:-1].replace(b"[1]", b"1") + b"]" * 126)


def test_body_with_a_string_without_an_end_is_refused_in_one_pass():
    """A search that began anew at each quote would take more steps than there is time for."""
    body = b"[" * 200 + b'"' + b'\\"' * 300_000
    with pytest.raises(PayloadMalformed, match="faulty at character 201 "):
        decode(body)


def test_integer_is_exact_up_to_4300_digits_and_refused_beyond():
    assert decode(b"9" * 4300) == 10**4300 - 1
    with pytest.raises(PayloadMalformed, match="an integer in it has more than 4,300 digits"):
        decode(b"9" * 4301)


def test_reason_does_not_grow_with_the_depth_of_the_value():
    with pytest.raises(PayloadMalformed, match="payload is not JSON") as caught:
        decode(b'{"a":' * 600 + b"1e400")
    assert len(str(caught.value)) < 300


def test_very_deep_nesting_is_refused_without_recursion():
    with pytest.raises(PayloadMalformed, match="nested deeper than 128 levels"):
        decode(b"[" * 400_000)


@pytest.mark.parametrize("body", [b"", b"{", b"nope", b'"\xff"', b"NaN", b"1e400", b"\xef\xbb\xbf1", b"1 2"])
def test_invalid_json_is_refused(body):
    with pytest.raises(PayloadMalformed):
        decode(body)


def test_ids_are_unique_across_a_fork():
    mine = {new_id() for _ in range(1000)}
    assert len(mine) == 1000
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left threads behind
        child = os.fork()
    if child == 0:
        os.write(writer, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    assert theirs.split("-")[1] != new_id().split("-")[1]


def test_message_is_immutable_and_compares_by_value():
    one = new_message("orders.created", b"1", id="x")
    assert one.payload == 1
    assert one == type(one)(one.id, one.key, one.body, one.headers, one.published_at)
    with pytest.raises(AttributeError):
        one.id = "y"  # type: ignore[misc]


def test_integer_whose_bytes_contain_the_nan_marker_is_encoded():
    value = {"number": 0xCB7FF00000000000, "nothing": None}
    assert decode(encode(value)) == value


def test_nan_is_found_beside_integers_beyond_64_bits():
    with pytest.raises(PayloadUnencodable, match="NaN"):
        encode({"a": 2**70, "b": [float("nan")]})


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"id": ""}, IdInvalid, "it is empty"),
        ({"id": 7}, IdInvalid, "it is no text, but int"),
        ({"id": "a\udcff"}, IdInvalid, "it is not Unicode text"),
        ({"headers": {"a": "\udcff"}}, PayloadUnencodable, "header 'a' is not Unicode text"),
        ({"headers": {"\ud800": "a"}}, PayloadUnencodable, r"header '\\ud800' is not Unicode text"),
        ({"headers": {"a": 7}}, PayloadUnencodable, "header 'a': names and values are text, not int"),
    ],
)
def test_invalid_id_or_headers_are_refused(given, error, words):
    with pytest.raises(error, match=words):
        new_message("orders.created", b"1", **given)
    with pytest.raises(error, match=words):
        prepare(RouteTable(), "orders.created", b"1", allow_unrouted=True, **given)


@pytest.mark.parametrize(("key", "words"), [("", "an empty text"), (None, "None"), ("a b", "`a b`")])
def test_error_for_an_invalid_key_shows_it(key, words):
    with pytest.raises(KeyInvalid, match=f"{words} is not a routing key"):
        new_message(key, b"1")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"NaN", "NaN and infinity have no JSON form"),
        (b'{"a": [-Infinity]}', "NaN and infinity have no JSON form"),
        (b"1e999", "a number in it is too large: there is nothing beyond 1.8e308"),
        (b'"\\ud800"', "it holds a lone surrogate, which is no Unicode text"),
        (b'"\xff"', "it is not UTF-8"),
        (b'{"a": 1', "it is faulty at character 8 (...)"),
        (b"{bad", "it is faulty at character 2 (...)"),
        ('{"é": x}'.encode(), "it is faulty at character 7 (...)"),
    ],
)
def test_error_for_invalid_json_names_the_cause(body, why):
    with pytest.raises(PayloadMalformed) as refused:
        decode(body)
    said = re.sub(r"\(in detail: .*\)", "(...)", str(refused.value))
    assert said == f"payload is not JSON: {why}"
