"""No decision depends on the words of another library: each raises its own class here, with another text."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import yaml

from abe_router.backends.redis import finder
from abe_router.backends.redis.protocol import server_error
from abe_router.backends.sqlite.database import Database
from abe_router.config.reading import syntax
from abe_router.config.reading.faults import Faults
from abe_router.errors import BackendError, PayloadMalformed, PayloadUnencodable, PayloadUnfit
from abe_router.messages import message
from abe_router.schema.payload_type import payload_type_of

WORDS = "quite other words"


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize("error", [msgspec.DecodeError(WORDS), msgspec.ValidationError(WORDS)], ids=repr)
@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"a": 1', "it is faulty at character 8 "),
        (b"[NaN]", "NaN and infinity have no JSON form"),
        (b"1e999", "a number in it is too large"),
        (b"9" * 4301, "an integer in it has more than 4,300 digits"),
        (b'"\\ud800"', "it holds a lone surrogate"),
        (b'"\xff"', "it is not UTF-8"),
        (b"1", "the parser refuses it"),
    ],
)
def test_reason_of_a_refused_body_is_found_in_the_body(monkeypatch, error, body, why):
    monkeypatch.setattr(message, "_decode", raising(error))
    with pytest.raises(PayloadMalformed) as caught:
        message.decode(body)
    assert str(caught.value).startswith(f"payload is not JSON: {why}")
    assert WORDS not in str(caught.value)


def test_words_of_the_second_parser_stand_behind_ours(monkeypatch):
    monkeypatch.setattr(message.json, "loads", raising(json.JSONDecodeError(WORDS, "{bad", 1)))
    with pytest.raises(PayloadMalformed) as caught:
        message.decode(b"{bad")
    assert str(caught.value) == f"payload is not JSON: it is faulty at character 2 (in detail: {WORDS})"


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_decimal_without_a_value_is_refused_whatever_the_encoder_says(monkeypatch, kind):
    monkeypatch.setattr(message, "_encode", raising(kind(WORDS)))
    with pytest.raises(PayloadUnencodable, match="NaN and infinity have no JSON form"):
        message.encode({"price": Decimal("Infinity")})


def test_what_orjson_refuses_is_encoded_by_msgspec(monkeypatch):
    monkeypatch.setattr(message, "_encode_plain", raising(message.orjson.JSONEncodeError(WORDS)))
    assert message.encode({"id": 7}) == b'{"id":7}'


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("a: b: c\n", "R005", "quote a value that contains `: `"),
        ("a:\n  c: 1\n  b:2\nd: 3\n", "R005", "write a colon and a space after the name: `b: 2`"),
        ("a: @b\n", "R005", "quote a value that begins with this character"),
    ],
)
def test_fault_of_yaml_is_explained_by_its_place(text, code, hint):
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        list(yaml.parse(text, yaml.CSafeLoader))
    caught.value.problem = caught.value.context = WORDS
    faults = Faults(Path("routes.yaml"))
    syntax.syntax_fault(caught.value, text, faults)
    (found,) = faults.all()
    assert (found.code, found.hint[: len(hint)], WORDS in found.message) == (code, hint, False)


def test_text_that_is_not_utf8_is_known_by_an_error_without_a_code_of_sqlite():
    database = SimpleNamespace(_connection=SimpleNamespace(text_factory=str))
    error = sqlite3.OperationalError(WORDS)
    error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
    assert not Database._is_text_undecodable(database, error)
    assert Database._is_text_undecodable(database, sqlite3.OperationalError(WORDS))


async def test_server_that_is_no_cluster_node_is_known_by_the_code_of_its_reply(monkeypatch):
    async def ask(*_):
        return [server_error(f"ERR {WORDS}")]

    monkeypatch.setattr(finder, "ask", ask)
    with pytest.raises(BackendError, match="is no cluster node"):
        await finder.ClusterFinder._ask(SimpleNamespace(_address=None), "host:1", ())


@dataclass
class Order:
    id: int


@pytest.mark.parametrize(
    ("payload", "pointer", "keyword", "why"),
    [
        ({"id": "7"}, "/id", "type", ": type: expected integer"),
        ({}, "", "required", ": required: expected property `id`"),
        ({"id": 7}, "", "", " (in detail: quite other … here)"),  # what a validator of the user refuses
    ],
)
def test_place_of_an_unfit_payload_is_found_in_the_payload(monkeypatch, payload, pointer, keyword, why):
    def charge(order: Order):
        return order

    convert = payload_type_of(charge).convert
    monkeypatch.setattr(msgspec, "convert", raising(msgspec.ValidationError("quite other 'secret' here")))
    with pytest.raises(PayloadUnfit) as caught:
        convert(payload)
    assert (caught.value.pointer, caught.value.keyword) == (pointer, keyword)
    assert str(caught.value) == f"at {pointer or '(root)'}: it does not fit the type{why}"
