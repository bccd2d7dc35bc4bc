"""The log: messages in the order they were appended, read by key or in that order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from abe_router.backends.sqlite.database import Database
from abe_router.errors import PayloadUnencodable
from abe_router.message import Message

#: Up to so many keys, the messages of a pattern are found key by key where they lie far apart.
FEW_KEYS = 64
#: How many messages of the log are looked at for each one wanted, before they count as far apart.
_NEAR = 32
#: From how many new messages on it is cheaper to wake every fetch than to look at their keys.
_MANY = 1000
#: Larger than any number of a message.
_ENDLESS = 2**63 - 1

_OF_KEY = """
    SELECT seq, kid, published_at, id, headers, CAST(body AS BLOB) FROM messages
    WHERE kid = ? AND seq > ? ORDER BY seq LIMIT ?"""

# One walk over the log that passes over other keys' messages. The plus sign keeps SQLite from taking the
# index on keys instead, and then sorting the whole backlog for a few of its messages.
_IN_ORDER = """
    SELECT seq, kid, published_at, id, headers, CAST(body AS BLOB) FROM messages
    WHERE seq > ? AND seq <= ? AND +kid IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?"""

# The first few messages of each key by its index, and the first few of those.
_BY_KEY = """
    SELECT m.seq, m.kid, m.published_at, m.id, m.headers, CAST(m.body AS BLOB)
    FROM json_each(?1) AS k CROSS JOIN messages AS m
    WHERE m.seq IN (SELECT seq FROM messages WHERE kid = k.value AND seq > ?2 ORDER BY seq LIMIT ?3)
    ORDER BY m.seq LIMIT ?3"""

_decode_headers = msgspec.json.Decoder(dict[str, str]).decode


class Row(NamedTuple):
    """A message as it is stored; `body` is bytes whoever wrote it."""

    seq: int
    kid: int
    published_at: float
    id: str
    headers: str | None
    body: bytes


def encode_message(message: Message) -> tuple[str, float, str, str | None, bytes]:
    """Return a message as values of the tables, its key first; raise PayloadUnencodable if it is not text."""
    try:
        message.id.encode()
        headers = msgspec.json.encode(message.headers).decode() if message.headers else None
    except UnicodeEncodeError:
        raise PayloadUnencodable("id and headers of a message must be Unicode text") from None
    return (message.key, message.published_at, message.id, headers, message.body)


def decode_message(database: Database, row: Row, attempt: int) -> Message:
    """Return a stored message; headers that someone else wrote and that are none are left out."""
    headers: dict[str, str] = {}
    if row.headers:
        with suppress(msgspec.MsgspecError):
            headers = _decode_headers(row.headers)
    return Message(row.id, database.keys.names[row.kid], row.body, headers, row.published_at, attempt)


def append(database: Database, messages: Sequence[tuple[str, float, str, str | None, bytes]]) -> None:
    """Add encoded messages at the end of the log."""
    number, connection = database.keys.number, database.connection
    rows = [(number(connection, message[0]), *message[1:]) for message in messages]
    database.execute_many(
        "INSERT INTO messages (kid, published_at, id, headers, body) VALUES (?, ?, ?, ?, ?)", rows
    )
    database.news.kids.update(row[0] for row in rows)


def end(database: Database) -> int:
    """Return the number of the last message of the log, 0 if there is none."""
    (seq,) = database.execute("SELECT max(seq) FROM messages").fetchone()
    return seq or 0


def place(database: Database, start: float) -> int:
    """Return the number of the last message before the first one published at `start` or later."""
    if start <= 0:
        return 0
    row = database.execute(
        "SELECT seq - 1 FROM messages WHERE published_at >= ? ORDER BY seq LIMIT 1", (start,)
    ).fetchone()
    return end(database) if row is None else row[0]


def read(database: Database, pattern: str, after: int, limit: int) -> list[Row]:
    """Return the first messages after number `after` whose key matches."""
    kids = database.keys.matching(pattern)
    if not kids:
        return []
    if len(kids) == 1:
        return _rows(database, _OF_KEY, (kids[0], after, limit))
    listed = database.keys.listed(pattern)
    near = after + _NEAR * limit
    rows = _rows(database, _IN_ORDER, (after, near, listed, limit))
    if len(rows) == limit or near >= end(database):
        return rows
    if len(kids) <= FEW_KEYS:
        return _rows(database, _BY_KEY, (listed, after, limit))
    return _rows(database, _IN_ORDER, (after, _ENDLESS, listed, limit))


def first(database: Database, pattern: str, after: int) -> int | None:
    """Return the number of the first message after number `after` whose key matches, None without one."""
    kids = database.keys.matching(pattern)
    if len(kids) <= FEW_KEYS:
        found = database.execute(
            """
            SELECT min((SELECT seq FROM messages WHERE kid = k.value AND seq > ? ORDER BY seq LIMIT 1))
            FROM json_each(?) AS k""",
            (after, database.keys.listed(pattern)),
        )
    else:
        found = database.execute(
            """
            SELECT seq FROM messages
            WHERE seq > ? AND +kid IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT 1""",
            (after, database.keys.listed(pattern)),
        )
    row = found.fetchone()
    return None if row is None else row[0]


def count(database: Database, pattern: str, after: int) -> int:
    """Return how many messages there are after number `after` whose key matches."""
    (n,) = database.execute(
        "SELECT count(*) FROM messages WHERE kid IN (SELECT value FROM json_each(?)) AND seq > ?",
        (database.keys.listed(pattern), after),
    ).fetchone()
    return int(n)


def keys_since(database: Database, after: int) -> set[int] | None:
    """Return the numbers of the keys that got messages after number `after`; None when those are many."""
    if end(database) - after > _MANY:
        return None
    return {kid for (kid,) in database.execute("SELECT DISTINCT +kid FROM messages WHERE seq > ?", (after,))}


def _rows(database: Database, sql: str, values: tuple[object, ...]) -> list[Row]:
    return list(map(Row._make, database.execute(sql, values).fetchall()))
