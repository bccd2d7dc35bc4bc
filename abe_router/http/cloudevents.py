"""CloudEvents 1.0 over HTTP: structured, binary and batched events become the content of messages.

The type of an event is the routing key, unless the path of the request names one. The data is the payload,
and must be JSON. The id of the event is the id of the message, unless the routes file takes the id from the
payload or a header. Each attribute also becomes a header with the prefix `ce-`, as in the binary mode, except
`traceparent` and `tracestate`, which keep their names.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from abe_router.errors import PayloadMalformed
from abe_router.observe.trace_context import TRACEPARENT, TRACESTATE
from abe_router.operations.bulk import LineContent

STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
#: The header that marks an event in binary mode.
BINARY_MARK = "ce-specversion"

_REQUIRED = ("id", "source", "type")
#: The attributes that the specification defines, all of them text. Extensions may be integers and booleans.
_TEXTS = frozenset({*_REQUIRED, "specversion", "datacontenttype", "dataschema", "subject", "time"})
#: Attributes of the distributed tracing extension.
_TRACE = frozenset({TRACEPARENT, TRACESTATE})
_NAME = re.compile(r"[a-z0-9]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_JSON_TYPE = re.compile(r"[\w.-]+/([\w.-]+\+)?json", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
#: Longest attributes of one event together, in bytes.
MAX_ATTRIBUTES = 65_536
#: How the next object of an array begins, and what may nest in it.
_OBJECT = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*(?=\{)")
_NESTED = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]')
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_read_value = msgspec.json.Decoder().decode


class _Data(msgspec.Struct):
    """The data of an event, not decoded. Other members are skipped without an object for each."""

    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    data_base64: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_read_data = msgspec.json.Decoder(_Data).decode


class CloudEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON format of an event, as the OpenAPI document shows it. Extensions are further members."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    data: Any = None
    data_base64: str | None = None
    datacontenttype: str | None = None
    subject: str | None = None
    time: str | None = None


#: Says whether the routes file itself names the id of the messages of a key.
NamesId = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class StructuredEvent:
    """An event of which the envelope and the data are one JSON object, `text`."""

    number: int
    text: bytes
    names_id: NamesId

    def parse(self, key: str | None, headers: Mapping[str, str]) -> LineContent:
        """Return the message of the event; raise PayloadMalformed if it is not an event with JSON data."""
        try:
            if len(self.text) > MAX_ATTRIBUTES:  # a shorter text is read once
                long = _read_data(self.text)
                if len(self.text) - len(bytes(long.data)) - len(bytes(long.data_base64)) > MAX_ATTRIBUTES:
                    raise PayloadMalformed(f"its attributes are longer than {MAX_ATTRIBUTES:,} bytes")
            members = _read_members(self.text)
            data = members.pop("data", None)
            values = {name: _read_value(value) for name, value in members.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadMalformed(f"the event is not a JSON object: {error}") from None
        encoded = values.pop("data_base64", None)
        attributes = _attributes(values)
        _check_type(attributes.pop("datacontenttype", "application/json"))
        if encoded is not None and data is not None:
            raise PayloadMalformed("the event has both `data` and `data_base64`")
        body = b"null" if data is None else bytes(data)
        if encoded is not None:
            body = _decode_base64(encoded)
        return _content(attributes, body, key, headers, self.names_id)


@dataclass(frozen=True, slots=True)
class BinaryEvent:
    """An event whose attributes are HTTP headers, and whose data is the body."""

    attributes: Mapping[str, str]
    content_type: str
    body: bytes
    names_id: NamesId
    number: int = 1

    def parse(self, key: str | None, headers: Mapping[str, str]) -> LineContent:
        """Return the message of the event; raise PayloadMalformed if it is not an event with JSON data."""
        attributes = _attributes(self.attributes)
        if "datacontenttype" in attributes:
            raise PayloadMalformed("`Content-Type` is the type of the data: remove `ce-datacontenttype`")
        if self.body or self.content_type:
            _check_type(self.content_type)
        return _content(attributes, self.body or b"null", key, headers, self.names_id)


def read_batch(text: bytes, names_id: NamesId, most: int) -> list[StructuredEvent] | None:
    """Return the events of a batch, numbered from 1; None if there are more than `most`.

    Raise PayloadMalformed if it is not a JSON array of objects. Only one object at a time is looked at, and
    none is decoded, so what is no batch takes no memory.
    """
    try:
        _check_json(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PayloadMalformed(f"the batch is not a JSON array: {error}") from None
    at = text.find(b"[") + 1
    if text[:at].strip() != b"[":
        raise PayloadMalformed("the batch is not a JSON array")
    found: list[StructuredEvent] = []
    while (begin := _OBJECT.match(text, at)) is not None:
        if len(found) == most:
            return None
        at = _end_of_object(text, begin.end())
        found.append(StructuredEvent(len(found) + 1, text[begin.end() : at], names_id))
    if text[at:].strip() != b"]":
        raise PayloadMalformed(f"event {len(found) + 1:,} of the batch is not a JSON object")
    return found


def _end_of_object(text: bytes, at: int) -> int:
    """Return where the object that begins at a position of valid JSON ends."""
    depth = 0
    for token in _NESTED.finditer(text, at):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
    raise AssertionError("the text is not valid JSON")


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Return the attributes among the headers of a request; raise PayloadMalformed if one is not UTF-8."""
    found: dict[str, str] = {}
    for name, value in raw:
        attribute = name.decode("latin-1").lower()
        if not attribute.startswith("ce-"):
            continue
        attribute = attribute.removeprefix("ce-")
        if attribute in found:
            raise PayloadMalformed(f"the header `ce-{attribute}` occurs twice")
        try:
            text = _QUOTED.sub(lambda quoted: _ESCAPED.sub(r"\1", quoted[1]), value.decode())
            found[attribute] = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise PayloadMalformed(f"the header `ce-{attribute}` is not UTF-8") from None
    return found


def is_json_type(media_type: str) -> bool:
    """Return whether a media type is JSON: `application/json`, `text/json`, or one that ends with `+json`."""
    return _JSON_TYPE.fullmatch(media_type.partition(";")[0].strip().lower()) is not None


def _content(
    attributes: dict[str, str], body: bytes, key: str | None, headers: Mapping[str, str], names_id: NamesId
) -> LineContent:
    key = attributes["type"] if key is None else key
    named = {(name if name in _TRACE else f"ce-{name}"): value for name, value in attributes.items()}
    id = None if names_id(key) else attributes["id"]
    return LineContent(key, msgspec.Raw(body), {**headers, **named}, id)


def _attributes(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of an event as text; raise PayloadMalformed if they break the specification."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if value is None:
            continue
        if _NAME.fullmatch(name) is None:
            raise PayloadMalformed(f"`{name[:64]}` is not the name of an attribute")
        match value:
            case str():
                if _CONTROL.search(value):
                    raise PayloadMalformed(f"the attribute `{name}` contains a control character")
                found[name] = value
            case _ if name in _TEXTS:
                raise PayloadMalformed(f"the attribute `{name}` is not text")
            case bool():
                found[name] = "true" if value else "false"
            case int() if -(2**31) <= value < 2**31:
                found[name] = str(value)
            case _:
                raise PayloadMalformed(f"the attribute `{name}` is not text, an integer or a boolean")
    if (version := found.get("specversion")) != "1.0":
        raise PayloadMalformed("`specversion` is missing" if version is None else "`specversion` is not 1.0")
    for name in _REQUIRED:
        if not found.get(name):
            raise PayloadMalformed(f"the event has no `{name}`")
    return found


def _check_type(media_type: str) -> None:
    if not is_json_type(media_type):
        raise PayloadMalformed(f"the data is `{media_type[:100]}`, and payloads are JSON")


def _decode_base64(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise PayloadMalformed("`data_base64` is not Base64") from None
