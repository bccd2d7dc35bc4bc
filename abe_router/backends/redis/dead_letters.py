"""The dead letters of a subscription, in one stream for each key.

An id is `KEY:MILLISECONDS-NUMBER`, so it names the stream as well.

Other programs can write to these streams, and can name any time in a message. So a dead letter is read field
by field: what cannot be read takes a default, and no dead letter hides another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from abe_router.backend import DeadLetter, Reason
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import LATEST, accepted_at, order, read_count, read_message
from abe_router.backends.redis.names import Names, subscription_name
from abe_router.backends.redis.scripts import ANSWER_BYTES, DEAD, RANGE, REPLAY

#: Ids of one call.
_CHUNK = 100
#: Rows that are read of each stream in addition to its share of a page.
_AHEAD = 10
#: Bytes that one call reads of a stream without bodies: some milliseconds of the server.
_READ_BYTES = 2 * 1024 * 1024
#: Rows of one call without bodies: while these are decoded, the server reads the next ones.
_PART = 200
_ENTRY = re.compile(r"\d{1,20}-\d{1,20}")
_ENTRY_BYTES = re.compile(rb"\d{1,20}-\d{1,20}")
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_typed = msgspec.json.Decoder(DeadLetter).decode
_replace = msgspec.structs.replace


class _Reading(NamedTuple):
    """Calls under way: how many rows each reads, the reply to come of each key, and whether bodies come."""

    limit: int
    sent: Sequence[tuple[str, asyncio.Future[Any]]]
    bodies: bool


class DeadLetters:
    """The dead letters of the group called `group`, of some keys."""

    def __init__(self, connection: Connection, names: Names, group: str, keys: Iterable[str]) -> None:
        self._connection, self._names = connection, names
        self._group, self._keys = group, sorted(keys)

    async def list(self, limit: int, after: str, *, bodies: bool) -> Sequence[DeadLetter]:
        """Return up to `limit` dead letters, oldest first, beginning after the one of that id.

        With large bodies it returns fewer, though at least one, so that they do not fill the memory.
        """
        position = _parse(after) or ("", "")
        found: list[DeadLetter] = []
        make = _dead_letter if bodies else _bare
        most = limit if bodies else min(limit, _PART)
        count = min(most, limit // max(1, len(self._keys)) + _AHEAD)
        reading = self._read(count, *position, bodies=bodies) if limit > 0 else None
        while reading is not None:
            rows, more, full = await self._rows(reading)
            if rows:
                position = rows[-1][0], rows[-1][1][0].decode()
            rows, reading = rows[: limit - len(found)], None
            if more and not full and (left := limit - len(found) - len(rows)):
                count = min(most, count * 2)  # one key may have most of them
                reading = self._read(min(count, left), *position, bodies=bodies)
                self._connection.flush_early()  # the server reads while these are decoded
            found += [make(key, self._group, *row) for key, row in rows]
        return found

    def _read(self, count: int, last_key: str, last: str, *, bodies: bool) -> _Reading:
        """Begin to read the rows after one, at most `count` of each key."""
        sent = []
        for key in self._keys:
            # In keys up to the last one, its own time was listed.
            first = "-" if not last else f"({last}" if key <= last_key else last
            stream = self._names.dead(key, self._group)
            script, room = (RANGE, ANSWER_BYTES // len(self._keys)) if bodies else (DEAD, _READ_BYTES)
            sent.append((key, self._connection.run(script, (stream,), (first, count, room))))
        return _Reading(count, sent, bodies)

    async def _rows(self, reading: _Reading) -> tuple[Sequence[tuple[str, Any]], bool, bool]:
        """Return the rows that were read with their keys, by time and key, and whether there may be more.

        The last value is true if that is because an answer was full.
        """
        rows: list[tuple[tuple[int, int], str, Any]] = []
        ends: list[tuple[tuple[int, int], str]] = []
        full = 0
        for key, reply in reading.sent:
            answer, ended = await reply
            if not reading.bodies:
                answer = list(zip(*[iter(answer)] * 4, strict=True))
            if len(reading.sent) == 1:  # a stream is in order
                return [(key, row) for row in answer], len(answer) == reading.limit or ended > 0, ended > 0
            full += ended
            found = [(order(row[0]), key, row) for row in answer]
            rows += found
            if len(found) == reading.limit or ended:
                ends.append(found[-1][:2])
        # Of a stream that was not read to its end, later rows may come before those of other streams.
        end = min(ends, default=None)
        rows.sort(key=lambda row: row[:2])
        read = [row[1:] for row in rows if end is None or row[:2] <= end]
        return read, end is not None, full > 0

    async def replay(self, ids: Sequence[str]) -> int:
        """Deliver dead letters to their group again; return how many there were."""
        count = 0
        for key, entries in self._by_key(ids):
            keys = self._names.dead(key, self._group), self._names.stream(key)
            count += await self._connection.run(REPLAY, keys, (self._group, *entries))
        return count

    async def purge(self, ids: Sequence[str]) -> int:
        """Delete dead letters; return how many there were."""
        count = 0
        for key, entries in self._by_key(ids):
            count += await self._connection.send("XDEL", self._names.dead(key, self._group), *entries)
        return count

    def _by_key(self, ids: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield entry ids by key, in pieces; what is no id of ours is left out."""
        entries: dict[str, list[str]] = {key: [] for key in self._keys}
        for key, entry_id in filter(None, map(_parse, ids)):
            if key in entries:
                entries[key].append(entry_id)
        for key, found in entries.items():
            for first in range(0, len(found), _CHUNK):
                yield key, found[first : first + _CHUNK]


def _parse(dead_letter_id: str) -> tuple[str, str] | None:
    key, _, entry_id = dead_letter_id.rpartition(":")
    return (key, entry_id) if _ENTRY.fullmatch(entry_id) else None


def _bare(key: str, group: str, entry_id: bytes, record: bytes, name: bytes, former: bytes) -> DeadLetter:
    """Return a dead letter without the body of its message.

    A record that this package wrote is decoded at once; any other one is read field by field.
    """
    try:
        found = _decode_typed(record)
        message = found.message
        if (
            message.key == key
            and message.id == name.decode()
            and 0 <= found.first_failed_at <= LATEST
            and 0 <= found.last_failed_at <= LATEST
            and found.attempts >= 0
            and found.deliveries >= 0
            and found.route
        ):
            replays, id = _former(key, former) if former else (0, "")
            return _replace(found, id=f"{key}:{entry_id.decode()}", replays=replays, former=id)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    fields = [b"dead_letter", record, b"data", b"", b"former", former]
    return _dead_letter(key, group, entry_id, [*fields, b"id", name] if name else fields)


def _former(key: str, field: bytes) -> tuple[int, str]:
    """Return how often a message was replayed, and the id of the dead letter that the last replay moved."""
    count, _, entry_id = field.partition(b":")
    if not _ENTRY_BYTES.fullmatch(entry_id):
        return 0, ""
    return read_count(count) or 0, f"{key}:{entry_id.decode()}"


def _dead_letter(key: str, group: str, entry_id: bytes, fields: Sequence[bytes]) -> DeadLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        record = _decode(values.get(b"dead_letter", b""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        record = {"reason": {"message": f"the record of this dead letter cannot be read: {error}"}}
    message, _ = read_message(entry_id, fields, key)
    noted = _mapping(record, "message")
    headers = noted.get("headers")
    if b"headers" not in values and headers and isinstance(headers, dict):
        message = _replace(message, headers={k: _text(v) for k, v in headers.items()})
    accepted = accepted_at(entry_id)
    replays, former = _former(key, values.get(b"former", b""))
    subscription = group if "/" in group else subscription_name(key, group)  # that of a pattern has a slash
    return DeadLetter(
        route=_text(record.get("route")) or subscription,
        message=_replace(message, attempt=_number(noted, "attempt")),
        reason=_reason(_mapping(record, "reason")),
        attempts=_number(record, "attempts"),
        deliveries=_number(record, "deliveries"),
        first_failed_at=_seconds(record, "first_failed_at", accepted),
        last_failed_at=_seconds(record, "last_failed_at", accepted),
        revision=_text(record.get("revision")),
        id=f"{key}:{entry_id.decode()}",
        replays=replays,
        former=former,
    )


def _reason(record: Mapping[str, Any]) -> Reason:
    texts = {name: _text(record.get(name)) for name in Reason.__struct_fields__}
    return Reason(**{**texts, "kind": texts["kind"] or "malformed"})


def _mapping(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0


def _seconds(record: Mapping[str, Any], name: str, default: float) -> float:
    value = record.get(name)
    return value if isinstance(value, (int, float)) and 0 <= value <= LATEST else default
