"""The dead letters of a subscription, in one stream for each key.

An id is `KEY:MILLISECONDS-NUMBER`, so it names the stream as well.

Other programs can write to these streams, and can name any time in a message. So a dead letter is read field
by field: what cannot be read takes a default, and no dead letter hides another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from abe_router.backend import DeadLetter, Reason
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import LATEST, accepted_at, order, read_message
from abe_router.backends.redis.names import Names, subscription_name
from abe_router.backends.redis.scripts import ANSWER_BYTES, RANGE, REPLAY

#: Ids of one call.
_CHUNK = 100
_ENTRY = re.compile(r"\d{1,20}-\d{1,20}")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class DeadLetters:
    """The dead letters of the group called `group`, of some keys."""

    def __init__(self, connection: Connection, names: Names, group: str, keys: Iterable[str]) -> None:
        self._connection, self._names = connection, names
        self._group, self._keys = group, sorted(keys)

    async def list(self, limit: int, after: str) -> Sequence[DeadLetter]:
        """Return up to `limit` dead letters, oldest first, beginning after the one of that id."""
        last_key, last = _parse(after) or ("", "")
        room = ANSWER_BYTES // max(len(self._keys), 1)
        sent = []
        for key in self._keys:
            # They are in the order of (time, key). In keys up to the last one, its own time was listed.
            first = "-" if not last else f"({last}" if key <= last_key else last
            stream = self._names.dead(key, self._group)
            sent.append((key, self._connection.run(RANGE, (stream,), (first, limit, room))))
        found: list[tuple[tuple[tuple[int, int], str], bytes, Sequence[bytes]]] = []
        ends = []
        for key, reply in sent:
            rows, full = await reply
            found += [((order(entry_id), key), entry_id, fields) for entry_id, fields in rows]
            if full:
                ends.append(found[-1][0])
        # What comes after the end of a full answer may come after more of the same key.
        found = sorted((row for row in found if not ends or row[0] <= min(ends)), key=itemgetter(0))
        return [_dead_letter(row[0][1], self._group, *row[1:]) for row in found[:limit]]

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
        message = msgspec.structs.replace(message, headers={k: _text(v) for k, v in headers.items()})
    accepted = accepted_at(entry_id)
    subscription = group if "/" in group else subscription_name(key, group)  # that of a pattern has a slash
    return DeadLetter(
        route=_text(record.get("route")) or subscription,
        message=msgspec.structs.replace(message, attempt=_number(noted, "attempt")),
        reason=_reason(_mapping(record, "reason")),
        attempts=_number(record, "attempts"),
        deliveries=_number(record, "deliveries"),
        first_failed_at=_seconds(record, "first_failed_at", accepted),
        last_failed_at=_seconds(record, "last_failed_at", accepted),
        revision=_text(record.get("revision")),
        id=f"{key}:{entry_id.decode()}",
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
