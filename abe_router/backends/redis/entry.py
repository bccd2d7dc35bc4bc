"""Stream entries as messages.

An entry has the fields `data`, the JSON payload, `id`, `at`, the time in seconds since the epoch, and
`headers`, a JSON object, when there are any. Another program needs to write only `data`: id and time are then
those of the entry. An entry without `data` that is no envelope either is delivered with an empty body and a
fault. It ends among the dead letters and does not disappear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from abe_router.backend import Delivery
from abe_router.backends.redis.foreign import read_foreign
from abe_router.messages.message import MAX_BYTES, Message

Fields = Sequence[bytes]
Entry = tuple[bytes, Fields]

#: The last second that the calendar has, in seconds since the epoch.
LATEST = 253402300799.0

#: Most bytes of an entry that is delivered: a payload at its limit, and as much for all other fields.
MOST_BYTES = 2 * MAX_BYTES

_headers = msgspec.json.Decoder(dict[str, str])


def pack_headers(headers: Mapping[str, str]) -> bytes:
    """Return headers as a field, empty when there are none."""
    return msgspec.json.encode(headers) if headers else b""


def unpack_headers(field: bytes) -> dict[str, str]:
    """Return the headers of a field; none when another program wrote something else there."""
    try:
        return _headers.decode(field) if field else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def new_deliveries(entries: Sequence[Entry], key: str, group: str) -> tuple[list[Delivery], list[bytes]]:
    """Return first deliveries, and the ids of the entries for another group."""
    found: list[Delivery] = []
    others: list[bytes] = []
    own = group.encode()
    for entry_id, fields in entries:
        if len(fields) == 6 and fields[2] == b"id" and fields[4] == b"at" and fields[0] == b"data":
            # A fast path for the common case; the code below would read the entry alike.
            try:
                at = float(fields[5])
                message = Message(str(fields[3], "utf-8"), key, fields[1], {}, at, 1)
            except ValueError:
                at = 0.0
            if not 0.0 < at <= LATEST:
                message, _ = _message(entry_id, _values(fields), key, 1)
            found.append(Delivery(message, 1, entry_id))
        else:
            values = _values(fields)
            if values.get(b"only", own) != own:
                others.append(entry_id)
                continue
            message, fault = _message(entry_id, values, key, 1)
            found.append(Delivery(message, 1, entry_id, fault=fault))
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
        found.append(Delivery(message, count, entry_id, since, fault=fault))
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
        body, headers, fault = read_foreign(values)
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


def _values(fields: Fields) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))
