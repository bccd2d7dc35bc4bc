"""Stream entries as messages.

An entry has the fields `data`, the JSON payload, `id`, `at`, the time in seconds since the epoch, and
`headers`, a JSON object, when there are any. Another program needs to write only `data`: id and time are then
those of the entry.

FastStream writes one field, `__data__`: an envelope of headers and payload. All other entries without `data`
have no payload that we know of. They are delivered with an empty body, their fields as headers, and a fault,
so they end among the dead letters. Their fields stay as they are on the server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from abe_router.backend import Delivery
from abe_router.errors import PayloadUnencodable
from abe_router.messages.message import MAX_BYTES, Message
from abe_router.text import counted

#: Returns a value as MessagePack.
packed = msgspec.msgpack.Encoder().encode

Fields = Sequence[bytes]
Entry = tuple[bytes, Fields]

#: The last second that the calendar has, in seconds since the epoch.
LATEST = 253402300799.0

#: Most bytes of an entry that is delivered: a payload at its limit, and as much for all other fields.
MOST_BYTES = 2 * MAX_BYTES

_decode_headers = msgspec.json.Decoder(dict[str, str])

_ENVELOPE = b"__data__"
#: An envelope of FastStream begins with this, its version, and where its headers and its payload begin.
_MAGIC = b"\x89BIN\r\n\x1a\n"
_HEAD = struct.Struct(">8sHII")
_SHORT = struct.Struct(">H")
#: Most characters of a field's name and of its value that are shown as a header.
_SHOWN = 1000
_decode_record = msgspec.json.Decoder(dict[str, Any]).decode
_OURS = frozenset({b"id", b"at", b"headers", b"only", b"dead_letter", b"former"})


def pack_headers(headers: Mapping[str, str]) -> bytes:
    """Return headers as a field, empty when there are none."""
    return msgspec.json.encode(headers) if headers else b""


def unpack_headers(field: bytes) -> dict[str, str]:
    """Return the headers of a field; none when another program wrote something else there."""
    try:
        return _decode_headers.decode(field) if field else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def new_deliveries(entries: Sequence[Entry], key: str, group: str) -> tuple[list[Delivery], list[bytes]]:
    """Return first deliveries, and the ids of the entries for another group."""
    found: list[Delivery] = []
    others: list[bytes] = []
    own = group.encode()
    for entry_id, fields in entries:
        if len(fields) == 6:
            # A fast path for the common case; the code below reads such an entry alike.
            data, body, name, text, when, at = fields
            if data == b"data" and name == b"id" and when == b"at" and text:
                try:
                    seconds = float(at)
                    if 0.0 < seconds <= LATEST:
                        message = Message(text.decode(), key, body, {}, seconds, 1)
                        found.append(Delivery(message, 1, entry_id))
                        continue
                except ValueError:
                    pass  # another program wrote it
        values = _values(fields)
        if values.get(b"only", own) != own:
            others.append(entry_id)
            continue
        message, fault = _message(entry_id, values, key, 1)
        found.append(Delivery(message, 1, entry_id, fault=fault, replays=_replays(values)))
    return found, others


def taken_deliveries(taken: Sequence[Any], key: str, group: str) -> tuple[list[Delivery], list[bytes]]:
    """Return later deliveries, in the order of the stream, and the ids of the entries for another group.

    An entry is {id, fields, delivery count, failures}, failures being `COUNT:MILLISECONDS` or None.
    """
    found: list[Delivery] = []
    others: list[bytes] = []
    own = group.encode()
    for entry_id, fields, count, failures in sorted(taken, key=lambda entry: order(entry[0])):
        values = _values(fields)
        if values.get(b"only", own) != own:
            others.append(entry_id)
            continue
        failed, since = _failures(failures)
        message, fault = _message(entry_id, values, key, failed + 1)
        found.append(Delivery(message, count, entry_id, since, fault=fault, replays=_replays(values)))
    return found, others


def order(entry_id: bytes) -> tuple[int, int]:
    """Return the sort key of an entry id."""
    head, _, tail = entry_id.partition(b"-")
    return int(head), int(tail)


def read_message(entry_id: bytes, fields: Fields, key: str) -> tuple[Message, str | None]:
    """Return the message of an entry, and the one group it is for, None if it is for all groups."""
    values = _values(fields)
    only = values.get(b"only")
    return _message(entry_id, values, key, 1)[0], None if only is None else only.decode("utf-8", "replace")


def accepted_at(entry_id: bytes) -> float:
    """Return when the server accepted an entry, in seconds since the epoch.

    Another program may have chosen the id, so a time beyond the calendar becomes its last second.
    """
    return min(order(entry_id)[0] / 1000, LATEST)


def _message(entry_id: bytes, values: Mapping[bytes, bytes], key: str, attempt: int) -> tuple[Message, str]:
    """Return the message of an entry, and its fault, empty if it has none."""
    body, fault = values.get(b"data"), ""
    headers: dict[str, str] = {}
    if (size := sum(map(len, values.values()))) > MOST_BYTES:
        body, fault = b"", f"the entry has {size:,} bytes, over the limit of {MOST_BYTES:,}"
    elif body is None:
        body, headers, fault = _read_foreign(values)
    else:
        headers = unpack_headers(values.get(b"headers", b""))
    message = Message(
        id=(values.get(b"id") or entry_id).decode("utf-8", "replace"),
        key=key,
        body=body,
        headers=headers,
        published_at=read_time(values.get(b"at", b"")) or accepted_at(entry_id),
        attempt=attempt,
    )
    return message, fault


def read_time(field: bytes | str) -> float:
    """Return a time in seconds since the epoch that another program may have written.

    It is 0 for text that is no number, and for a number that the calendar does not have: NaN, infinity, a
    time before 1970 or after the year 9999.
    """
    try:
        seconds = float(field)
    except ValueError:
        return 0.0
    return seconds if 0.0 < seconds <= LATEST else 0.0


def read_count(field: bytes) -> int | None:
    """Return a count or a number of milliseconds, None for anything else that another program wrote there."""
    # Python refuses very long numbers, and Redis has none of more than 20 digits.
    return int(field) if len(field) <= 20 and field.isdigit() else None


def _failures(field: bytes | None) -> tuple[int, float | None]:
    """Return how often an entry failed, and since when, from a field `COUNT:MILLISECONDS`."""
    count, _, since = (field or b"0:").partition(b":")
    millis = read_count(since)
    return read_count(count) or 0, None if millis is None else min(millis / 1000, LATEST)


def _replays(values: Mapping[bytes, bytes]) -> int:
    """Return how often an entry was replayed, from its field `former`, which is `COUNT:ID`."""
    former = values.get(b"former")
    return 0 if former is None else read_count(former.partition(b":")[0]) or 0


def _values(fields: Fields) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _read_foreign(values: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, str], str]:
    """Return payload, headers and fault of an entry without `data`; the fault is empty if there is none."""
    if (envelope := _opened(values.get(_ENVELOPE))) is not None:
        return *envelope, ""
    shown = {_text(name): _text(value) for name, value in values.items() if name not in _OURS}
    # A name may be as secret as a value, so the headers alone have it: they are masked when they are shown.
    return b"", shown, f"no field `data`, but {counted(len(shown), 'other field')}"


def _opened(envelope: bytes | None) -> tuple[bytes, dict[str, str]] | None:
    """Return payload and headers of an envelope, None if it is none."""
    if envelope is None:
        return None
    try:
        return _binary(envelope) if envelope.startswith(_MAGIC) else _legacy(envelope)
    except (struct.error, UnicodeDecodeError, msgspec.DecodeError, RecursionError, KeyError, AttributeError):
        return None


def _binary(envelope: bytes) -> tuple[bytes, dict[str, str]]:
    _, version, at, payload = _HEAD.unpack_from(envelope)
    if version != 1 or not at <= payload <= len(envelope):
        raise struct.error("another version, or cut off")
    return envelope[payload:], _headers(envelope[:payload], at)


def _headers(envelope: bytes, at: int) -> dict[str, str]:
    """Return the headers that begin at a position, up to the first that cannot be read.

    FastStream 0.7 writes the length of a text in characters, which is too short for some texts.
    """
    texts: list[str] = []
    with suppress(struct.error, UnicodeDecodeError):
        (count,) = _SHORT.unpack_from(envelope, at)
        at += _SHORT.size
        for _ in range(2 * count):
            (size,) = _SHORT.unpack_from(envelope, at)
            at += _SHORT.size + size
            texts.append(envelope[at - size : at].decode())
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _legacy(envelope: bytes) -> tuple[bytes, dict[str, str]]:
    """Open the JSON envelope of FastStream before 0.6: the payload is a text in it."""
    record = _decode_record(envelope)
    headers = {name: str(value) for name, value in (record.get("headers") or {}).items()}
    return record["data"].encode(), headers


def _text(field: bytes) -> str:
    return field[:_SHOWN].decode("utf-8", "backslashreplace")


def require_text(messages: Iterable[Message]) -> None:
    """Raise PayloadUnencodable when an id or header is not Unicode text: it would fail a whole batch."""
    try:
        for message in messages:
            # Most messages need no closer check, and this is a hot path.
            if message.headers or not message.id.isascii():
                packed((message.id, message.headers))
    except UnicodeEncodeError:
        raise PayloadUnencodable("id and headers of a message must be Unicode text") from None
