"""The log: messages in the order they were appended, found by key or in that order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from abe_router.backends.sqlite.database import Database
from abe_router.errors import PayloadUnencodable
from abe_router.messages.message import Message

#: The most messages that one statement adds. After each statement the thread must win the interpreter's
#: lock back, so few large ones are twice as fast as many, and 50 times when other threads are busy.
_AT_ONCE = 64
#: How many rows one statement may add.
SIZES = tuple(1 << power for power in range(_AT_ONCE.bit_length()))
#: From how many new messages on it is cheaper to wake every fetch than to look at their keys.
_MANY = 1000

_decode_headers = msgspec.json.Decoder(dict[str, str]).decode

#: A message as values of the tables: key, time, id, headers, body.
Encoded = tuple[str, float, str, str | None, bytes]


def encode(message: Message) -> Encoded:
    """Return the message as values of the tables; raise PayloadUnencodable when it is not text."""
    try:
        message.id.encode()
        headers = msgspec.json.encode(message.headers).decode() if message.headers else None
    except UnicodeEncodeError:
        raise PayloadUnencodable("id and headers of a message must be Unicode text") from None
    return (message.key, message.published_at, message.id, headers, message.body)


def decode(
    database: Database, attempt: int, kid: int, published_at: float, id: str, text: str | None, body: bytes
) -> Message:
    """Return a stored message; headers that someone else wrote and that are none are left out."""
    headers: dict[str, str] = {}
    if text:
        with suppress(msgspec.MsgspecError):
            headers = _decode_headers(text)
    return Message(id, database.keys.names[kid], body, headers, published_at, attempt)


def at_once(left: int) -> int:
    """Return how many of the rows that are left the next statement adds."""
    # Powers of two: few different statements for any number of rows, so SQLite knows them all.
    return min(_AT_ONCE, 1 << left.bit_length() - 1)


def append(database: Database, messages: Sequence[Encoded]) -> None:
    """Add messages at the end of the log."""
    begin, kids = 0, database.news.kids
    while left := len(messages) - begin:
        size = at_once(left)
        values: list[object] = []
        for key, *rest in messages[begin : begin + size]:
            kid = database.keys.number(database.connection, key)
            kids.add(kid)
            values.append(kid)
            values += rest
        database.execute(_INSERT[size], values)
        begin += size


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
    # Without the plus sign SQLite would walk over the whole index on keys.
    return {kid for (kid,) in database.execute("SELECT DISTINCT +kid FROM messages WHERE seq > ?", (after,))}


#: By number of messages, the statement that adds them.
_INSERT = {
    size: "INSERT INTO messages (kid, published_at, id, headers, body) VALUES "  # noqa: S608  only marks follow
    + ", ".join(["(?, ?, ?, ?, ?)"] * size)
    for size in SIZES
}
