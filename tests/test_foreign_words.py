"""No decision depends on the words of another library: each raises its own class here, with another text."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import click
import msgspec
import pytest
import yaml
from starlette.exceptions import HTTPException
from starlette.requests import Request

from abe_router.backends.redis import finder
from abe_router.backends.redis.address import Address
from abe_router.backends.redis.protocol import RedisProtocol, ServerError, ServerNotReady, server_error
from abe_router.backends.sqlite.database import Database
from abe_router.cli.errors import report_error
from abe_router.config.reading import syntax
from abe_router.config.reading.faults import Faults
from abe_router.errors import (
    BackendError,
    BackendUnavailable,
    PayloadMalformed,
    PayloadUnencodable,
    PayloadUnfit,
)
from abe_router.files import watch
from abe_router.http.guard import on_http_error
from abe_router.messages import message
from abe_router.schema import dialect
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


@asynccontextmanager
async def answering(*replies):
    """Run a server that answers a connection with these bytes and ends it; give its address."""
    ended = asyncio.Event()

    async def serve(reader, writer):
        with suppress(OSError):
            await reader.read(1)
            writer.writelines(replies)
            writer.write_eof()
            await reader.read()  # what is unread at the close would take the replies with it
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield Address.parse(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await ended.wait()


@pytest.mark.parametrize("login", [(), ("secret",)])
async def test_server_that_ends_the_connection_after_its_first_error_is_unavailable(login):
    async with answering(f"-ERR {WORDS}\r\n".encode()) as address:
        with pytest.raises(BackendUnavailable, match="takes no further connection"):
            await finder.ask(address, address.place, login, ("PING",))


async def test_server_that_refuses_the_login_and_stays_is_no_outage():
    async with answering(f"-ERR {WORDS}\r\n+PONG\r\n".encode()) as address:
        with pytest.raises(ServerError, match=WORDS):
            await finder.ask(address, address.place, ("secret",), ("PING",))


@pytest.mark.parametrize(("keys_move", "kind"), [(True, ServerNotReady), (False, ServerError)])
async def test_script_that_fails_is_tried_again_where_its_key_may_have_moved(keys_move, kind):
    protocol = RedisProtocol(5.0, lambda _: None, keys_move=keys_move)
    async with answering(f"-ERR {WORDS}\r\n".encode()) as address:
        await finder.dial(address, address.place, protocol, ())
        with pytest.raises(kind, match=WORDS):
            await protocol.send("EVALSHA", "f" * 40, 0)
        protocol.abort("done")


def test_nothing_that_a_reply_quotes_behind_its_first_quotation_is_shown():
    assert str(server_error("ERR quite 'XADD' other 'secret' words \"it's\"")).endswith("ERR quite 'XADD'")
    assert str(server_error("NOPERM quite 'xadd' other")).startswith(
        "the Redis server refused: NOPERM quite 'xadd' other"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (click.MissingParameter(WORDS, param=click.Argument(["key"])), "error: missing argument 'KEY'"),
        (
            click.BadParameter(WORDS, param=click.Option(["--limit"])),
            f"error: invalid value for '--limit': {WORDS}",
        ),
        (click.NoSuchOption("--limt", WORDS), "error: quite other words"),
        (click.UsageError(WORDS), "error: quite other words"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_wrong_usage_has_its_exit_code_and_hint_whatever_click_says(capsys, error, said):
    assert report_error(error) == 2
    assert capsys.readouterr().err.splitlines() == [said, "hint: see `abe-router --help`"]


@pytest.mark.parametrize(
    ("status", "said"), [(404, "there is nothing at this path"), (405, "/v1 does not take GET")]
)
def test_answer_for_an_unknown_path_or_method_is_ours(status, said):
    request = Request({"type": "http", "method": "GET", "path": "/v1", "headers": [], "query_string": b""})
    answer = on_http_error(request, HTTPException(status, WORDS))
    assert (answer.status_code, json.loads(answer.body)["detail"]) == (status, said)


async def test_files_are_polled_if_they_cannot_be_watched(monkeypatch, caplog):
    monkeypatch.setattr(watch, "awatch", raising(RuntimeError(WORDS)))
    signs = watch.Watch(list).signs()
    assert await anext(signs) is False
    assert caplog.messages == [f"cannot watch the files, they are polled instead: {WORDS}"]


def test_fault_of_a_schema_is_described_by_its_place_and_kind(monkeypatch):
    found = SimpleNamespace(
        instance_path=["minimum"], instance="0", kind=SimpleNamespace(name="x"), message=WORDS
    )
    validator = SimpleNamespace(is_valid=lambda _: False, iter_errors=lambda _: [found])
    monkeypatch.setattr(dialect, "_meta_validator", lambda _: validator)
    (fault,) = dialect.faults({"minimum": "0"}, None)
    assert (fault.pointer, fault.message) == (
        "/minimum",
        f'`minimum` has an invalid value: `"0"` (in detail: {WORDS})',
    )


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
