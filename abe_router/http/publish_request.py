"""A request that publishes one message, as the content of the message: its key, payload, headers and id."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from starlette.requests import Request

from abe_router.http.body import BodyShare, read_body, unsupported
from abe_router.http.cloudevents import (
    BATCHED,
    BINARY_MARK,
    STRUCTURED,
    BinaryEvent,
    NamesId,
    StructuredEvent,
    is_json_type,
    read_headers,
)
from abe_router.http.problem import Refusal
from abe_router.http.publish_bulk import NDJSON
from abe_router.messages.message import MAX_BYTES
from abe_router.observe.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE, allowed_baggage
from abe_router.operations.bulk import LineContent
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import payload_bytes, window

#: The media types of bodies, and other names of NDJSON.
ACCEPTED = ("application/json", NDJSON, STRUCTURED, BATCHED)
NDJSON_NAMES = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
#: The prefix of HTTP headers that become headers of the message without it.
HEADER_PREFIX = "abe-header-"
IDEMPOTENCY_KEY = "idempotency-key"
#: Longest event, in bytes: a payload at its limit in Base64, and its attributes.
MAX_EVENT = 2 * MAX_BYTES

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


async def read_content(
    request: Request, share: BodyShare, kind: str, key: str | None, table: RouteTable
) -> LineContent:
    """Return the content of the only message of a request whose body has the media type `kind`.

    `key` is that of the path. Raise Refusal if the request is malformed, and PayloadMalformed if its event or
    its payload is.
    """
    headers = message_headers(request, table)
    is_binary = BINARY_MARK in request.headers
    if kind != STRUCTURED and not is_binary and (key is None or not is_json_type(kind)):
        raise _wrong_type(kind, key)
    if kind == STRUCTURED or is_binary:
        refuse_idempotency_key(request, "the id of the event is the id of the message")
    if kind == STRUCTURED:
        text = await read_body(request, share, MAX_EVENT)
        return StructuredEvent(1, text, names_id(table)).parse(key, headers)
    if is_binary:
        attributes = read_headers(request.headers.raw)
        body = await read_body(request, share, MAX_BYTES)
        return BinaryEvent(attributes, kind, body, names_id(table)).parse(key, headers)
    assert key is not None
    id = _idempotency_key(request, table, key)
    body = payload_bytes(await read_body(request, share, MAX_BYTES), "the body")
    return LineContent(key, msgspec.Raw(body), dict(headers), id)


def media_type(request: Request) -> str:
    """Return the media type of the body, without its parameters; raise Refusal if it is not UTF-8."""
    kind, *parameters = request.headers.get("content-type", "").lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        charset = value.strip('"')
        if name == "charset" and charset not in ("utf-8", "us-ascii"):
            raise unsupported(f"the charset is `{charset[:40]}`, and JSON is UTF-8")
    return kind.strip()


def message_headers(request: Request, table: RouteTable) -> Mapping[str, str]:
    """Return the headers that the messages of a request get; raise Refusal if one is malformed.

    They are the headers with the prefix `Abe-Header-`, the trace context if it is valid, and the members of
    the baggage that the table allows.
    """
    found: dict[str, str] = {}
    for raw, value in request.headers.raw:
        name = raw.decode("latin-1").lower()
        if not name.startswith(HEADER_PREFIX):
            continue
        name = name.removeprefix(HEADER_PREFIX)
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise _bad_header(f"the header `{HEADER_PREFIX}{name}` is not UTF-8") from None
        if not name or name in found:
            raise _bad_header(
                f"the header `{HEADER_PREFIX}{name}` {'occurs twice' if name else 'has no name'}"
            )
        found[name] = text
    parents = request.headers.getlist(TRACEPARENT)
    if len(parents) == 1 and _TRACEPARENT.fullmatch(parents[0]):
        found.setdefault(TRACEPARENT, parents[0])
        if states := request.headers.getlist(TRACESTATE):
            found.setdefault(TRACESTATE, ",".join(states))
    baggage = ",".join(request.headers.getlist(BAGGAGE))
    return allowed_baggage(baggage, table.trace.baggage) | found


def names_id(table: RouteTable) -> NamesId:
    """Return what says whether the table takes the id of the messages of a key from them."""

    def names(key: str) -> bool:
        deduplication = table.contract(key).deduplication
        return deduplication is not None and bool(deduplication.source)

    return names


def refuse_idempotency_key(request: Request, why: str) -> None:
    """Raise Refusal if the request has the header `Idempotency-Key`."""
    if IDEMPOTENCY_KEY in request.headers:
        raise _bad_key(why)


def _idempotency_key(request: Request, table: RouteTable, key: str) -> str | None:
    """Return the id in the header `Idempotency-Key`, with or without its quotes."""
    given = request.headers.getlist(IDEMPOTENCY_KEY)
    if not given:
        return None
    if len(given) > 1:
        raise _bad_key("it occurs twice")
    quoted = _QUOTED.fullmatch(given[0])
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else given[0]
    if not text.isascii() or not text.isprintable() or not text:
        raise _bad_key("it is not printable ASCII text")
    if not window(table, key, text):
        raise _bad_key(f"`{key}` has no `dedupe` in the routes file, so a repetition is not recognised")
    return text


def _bad_key(why: str) -> Refusal:
    return Refusal(400, "idempotency-key", "The Idempotency-Key cannot be used", why)


def _bad_header(detail: str) -> Refusal:
    return Refusal(400, "header-invalid", "A header cannot be read", detail)


def _wrong_type(kind: str, key: str | None) -> Refusal:
    said = f"`{kind[:80]}`" if kind else "no media type"
    if key is None and is_json_type(kind):
        return unsupported("one payload needs its key: send it to /v1/publish/KEY")
    return unsupported(
        f"the body has {said}: send {', '.join(ACCEPTED)}", headers={"Accept-Post": ", ".join(ACCEPTED)}
    )
