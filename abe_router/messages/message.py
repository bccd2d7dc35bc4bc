"""A message: an id, a routing key, a JSON payload, headers and a time.

The publisher encodes the payload once, and it travels as those bytes. Each reader decodes it. Encoding comes
before validation, so that only what has a JSON form is checked.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from gc import get_referents
from itertools import count
from typing import Any

import msgspec
import orjson

from abe_router.errors import IdInvalid, PayloadMalformed, PayloadUnencodable
from abe_router.messages.pattern import check_key
from abe_router.text import foreign_detail

#: Largest payload, in bytes of JSON.
MAX_BYTES = 1024 * 1024
#: Deepest nesting of a payload, far below the recursion limits of every parser and validator involved.
MAX_DEPTH = 128
#: Deeper nesting takes more bytes than this: a bracket before each level, and one behind it.
_SURELY_FLAT = 2 * MAX_DEPTH

#: Most digits of an integer: what Python converts by default, and msgspec.
_MOST_DIGITS = 4300
#: What `_is_text_too_deep` leaves out: all but brackets and quotes.
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_AS_BRACES = bytes.maketrans(b"[]", b"{}")


def _as_json(value: Any) -> Any:
    """Return what stands for an object that msgspec does not know: a pydantic model or a CloudEvent.

    Neither library is imported: a model has `model_dump`, an event has `get_attributes` and `get_data`.
    """
    kind = type(value)
    try:
        if callable(getattr(kind, "model_dump", None)):
            return value.model_dump(mode="json", by_alias=True)
        if callable(getattr(kind, "get_attributes", None)) and callable(getattr(kind, "get_data", None)):
            data = value.get_data()
            is_binary = isinstance(data, bytes | bytearray | memoryview)
            member = {} if data is None else {"data_base64" if is_binary else "data": data}
            return {**value.get_attributes(), **member}
    except Exception as error:  # the code of a model: whatever it raises, the payload has no JSON form
        raise TypeError(f"{kind.__name__} cannot be encoded: {type(error).__name__}: {error}") from error
    raise TypeError(f"objects of type {kind.__name__} have no JSON form")


#: With these, orjson encodes values of the types that JSON decodes to, and besides only tuples, UUIDs and
#: enumerations: a schema either checks those as what they are encoded to, or raises ValueError.
_PLAIN = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_encode_plain = orjson.dumps
#: orjson begins with a buffer of so many bytes, and a shorter body keeps all its memory. A copy is compact.
_BUFFER = 4096
_encode = msgspec.json.Encoder(enc_hook=_as_json, decimal_format="number").encode
_decode = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder(enc_hook=_as_json).encode
_unpack = msgspec.msgpack.Decoder().decode
#: In MessagePack, a float whose exponent is all ones: NaN and the infinities (IEEE 754). A part of another
#: number may look the same.
_LIKE_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_finds_null = re.compile(rb"null").search
#: `in` finds an integer in bytes fastest.
_BACKSLASH = ord("\\")
_WITHOUT_FORM = "NaN and infinity have no JSON form"
_NON_FINITE = f"payload is not JSON: {_WITHOUT_FORM}"
_TOO_DEEP = f"payload is nested deeper than {MAX_DEPTH} levels"


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message. It is frozen and compared by value.

    `published_at` is in seconds since the epoch, UTC. `attempt` counts from 1 when a handler sees it and
    is 0 before the delivery. `body` is the payload as UTF-8 JSON.
    """

    id: str
    key: str
    body: bytes
    headers: Mapping[str, str] = {}
    published_at: float = 0.0
    attempt: int = 0

    @property
    def payload(self) -> Any:
        """The payload. Each access decodes it again, so no reader can change what another sees."""
        return decode(self.body)


class Duplicate(Message, frozen=True, gc=False):
    """A message that was published and not kept: one with its key and id was accepted within the window."""

    @classmethod
    def of(cls, message: Message) -> Duplicate:
        """Return a message as a duplicate."""
        return cls(message.id, message.key, message.body, message.headers, message.published_at)


def new_message(
    key: str, body: bytes, *, headers: Mapping[str, str] | None = None, id: str | None = None
) -> Message:
    """Make a message with the present time.

    Raise KeyInvalid when the key is malformed, IdInvalid when the given id is malformed, and
    PayloadUnencodable when the headers are not text.
    """
    return Message(
        new_id() if id is None else check_id(key, id),
        check_key(key),
        body,
        check_headers(headers) if headers else {},
        time.time(),
    )


def check_id(key: str, id: str) -> str:
    """Return an id that was given, or raise IdInvalid."""
    if not isinstance(id, str) or not id:
        raise IdInvalid(key, "it is empty" if id == "" else f"it is no text, but {type(id).__name__}")
    if not _is_text(id):
        raise IdInvalid(key, "it is not Unicode text")
    return id


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return headers, or raise PayloadUnencodable when a name or a value is not text."""
    for name, value in headers.items():
        for part in (name, value):
            if not isinstance(part, str):
                raise PayloadUnencodable(
                    f"header {name!r}: names and values are text, not {type(part).__name__}"
                )
            if not _is_text(part):
                raise PayloadUnencodable(f"header {name!a} is not Unicode text")
    return headers


def _is_text(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8. Lone surrogates cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode(payload: Any) -> bytes:
    """Return the payload as JSON, or raise PayloadUnencodable."""
    body, _ = encode_for_check(payload)
    return body


def encode_for_check(payload: Any, *, decoded: bool = False) -> tuple[bytes, Any]:
    """Return the payload as JSON, and a value that schemas accept only if they accept what is sent.

    It is the payload itself where that is certain, because decoding takes most of the time of publishing.
    With `decoded` it is what the JSON decodes to, always. Raise PayloadUnencodable.
    """
    try:
        body, is_plain = _encode_plain(payload, None, _PLAIN), True
    except TypeError:  # another type, a key that is no text, an integer beyond 64 bits, or no Unicode text
        body, is_plain = _encode_any(payload), False
    # Both encoders write NaN and infinity as null, which would lose them silently. Most bodies hold no null.
    # A compiled expression finds it faster than `in`.
    if _finds_null(body) and _has_non_finite(payload):
        raise PayloadUnencodable(_NON_FINITE)
    if len(body) > MAX_BYTES:
        raise PayloadUnencodable(_too_large(body))
    if len(body) > _SURELY_FLAT and _is_text_too_deep(body):
        raise PayloadUnencodable(_TOO_DEEP)
    if is_plain and len(body) < _BUFFER:
        body = b"%b" % body
    if is_plain and not decoded:
        return body, payload
    try:
        return body, _decode(body)
    except msgspec.DecodeError:  # msgspec writes JSON, except for decimals that are not numbers
        raise PayloadUnencodable(_NON_FINITE) from None


def _encode_any(payload: Any) -> bytes:
    try:
        return _encode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Some versions of msgspec write a decimal that is no number, and others refuse it.
        if _has_non_finite_decimal(payload):
            raise PayloadUnencodable(_NON_FINITE) from None
        raise PayloadUnencodable(f"payload is not JSON: {error}") from None


def decode(body: bytes) -> Any:
    """Return the value of a JSON body, or raise PayloadMalformed.

    Integers stay exact; one of more than 4,300 digits is refused. Of duplicate object keys the last one
    counts.
    """
    if len(body) > MAX_BYTES:
        raise PayloadMalformed(_too_large(body))
    try:
        value = _decode(body)
    except RecursionError:
        raise PayloadMalformed(_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PayloadMalformed(f"payload is not JSON: {_why(body)}") from None
    if len(body) > _SURELY_FLAT and _is_value_too_deep(value):
        raise PayloadMalformed(_TOO_DEEP)
    return value


def _too_large(body: bytes) -> str:
    return f"payload is {len(body):,} bytes, over the limit of {MAX_BYTES:,}"


def _is_value_too_deep(value: Any) -> bool:
    """Return whether a decoded value is nested deeper than MAX_DEPTH.

    Each pass goes one level down, to all parts of all lists and dicts at once, in one C call. It takes half
    the time of a look at the brackets of the text. It is for decoded values alone, because an object of
    another type refers to more than its parts, such as its class.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = get_referents(*level)
        if not level:
            return False
    return any(isinstance(part, list | dict) for part in level)


def _why(body: bytes) -> str:
    """Return why a body that the parser refused is not JSON. It is found out from the body itself.

    A second parser gives the position. It takes some bodies that the first refuses, which have the form of
    JSON but a value without one.
    """
    if not body.strip():
        return "it is empty"
    constants: list[str] = []
    integers: list[str] = []
    floats: list[str] = []
    try:
        value = json.loads(
            body.decode(),
            parse_constant=constants.append,
            parse_int=integers.append,
            parse_float=floats.append,
        )
        text = json.dumps(value, ensure_ascii=False)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except json.JSONDecodeError as fault:
        return f"it is faulty at character {fault.pos + 1} {foreign_detail(fault.msg)}"
    except RecursionError:
        return "it is nested too deeply"
    if constants:
        return _WITHOUT_FORM
    if any(len(number.lstrip("-")) > _MOST_DIGITS for number in integers):
        return f"an integer in it has more than {_MOST_DIGITS:,} digits"
    if any(math.isinf(float(number)) for number in floats):
        return "a number in it is too large: there is nothing beyond 1.8e308"
    if not _is_text(text):
        return "it holds a lone surrogate, which is no Unicode text"
    return "the parser refuses it"


def _is_text_too_deep(body: bytes) -> bool:
    """Return whether the brackets of a JSON text nest deeper than MAX_DEPTH.

    Each pass over the brackets removes the innermost pairs, so the number of passes is the depth. Brackets in
    strings do not count. Without escapes, every second part between quotes is outside of strings. Two quotes
    with nothing between them may be removed, which leaves only the strings with brackets. Every step is one C
    call, and linear. Most bodies are scanned once.
    """
    brackets = body.translate(_AS_BRACES, _NOT_STRUCTURE)
    if len(brackets) - brackets.count(b'"') <= 2 * MAX_DEPTH:
        return False
    if _BACKSLASH in body:
        unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        brackets = unescaped.translate(_AS_BRACES, _NOT_STRUCTURE)
    brackets = brackets.replace(b'""', b"")
    if b'"' in brackets:
        brackets = b"".join(brackets.split(b'"')[::2])
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"{}", b"")
    return bool(brackets)


def _has_non_finite(payload: Any) -> bool:
    """Return whether NaN or infinity is anywhere in the payload, mostly without a walk through it."""
    try:
        packed = _pack(payload)
    except (TypeError, ValueError, OverflowError):  # integers beyond 64 bits
        return _finds_non_finite(msgspec.to_builtins(payload, enc_hook=_as_json))
    return _LIKE_NON_FINITE.search(packed) is not None and _finds_non_finite(_unpack(packed))


def _has_non_finite_decimal(payload: Any) -> bool:
    from decimal import Decimal  # only what failed needs it

    try:
        values = msgspec.to_builtins(payload, builtin_types=(Decimal,), enc_hook=_as_json)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return _finds(values, lambda item: isinstance(item, Decimal) and not item.is_finite())


def _finds_non_finite(payload: Any) -> bool:
    return _finds(payload, lambda item: isinstance(item, float) and not math.isfinite(item))


def _finds(payload: Any, matches: Callable[[Any], bool]) -> bool:
    stack = [payload]
    while stack:
        item = stack.pop()
        if matches(item):
            return True
        if isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
    return False


class _Ids:
    """Makes ids that are unique across processes and ordered within one: time, process, counter."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._prefix = f"{time.time_ns() // 1_000_000:x}-{os.urandom(6).hex()}-"
        self._count = count(1)

    def make(self) -> str:
        """Return a new id."""
        return f"{self._prefix}{next(self._count)}"


_ids = _Ids()
new_id = _ids.make
os.register_at_fork(after_in_child=_ids.renew)
