"""The log: messages in the order they were accepted, found by key or in that order."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite

import msgspec

from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.keys import decode_text
from abe_router.errors import PayloadUnencodable
from abe_router.messages.message import MAX_BYTES, Message

#: The most rows of one statement. After each statement the thread must get the interpreter's lock back, so a
#: few large statements are twice as fast as many small ones, and 50 times when other threads are busy.
_MAX_ROWS = 64
#: How many rows one statement may have.
ROW_COUNTS = tuple(1 << power for power in range(_MAX_ROWS.bit_length()))
#: The number of new messages above which waking every fetch is cheaper than reading their keys.
_MANY = 1000
#: Most bytes of a body, and of headers, that are read. Another program may have written larger ones.
MOST_BYTES = 2 * MAX_BYTES
#: It needs the first bytes of a row alone. The older function reads a whole text to count its characters.
_LENGTH = "octet_length" if sqlite3.sqlite_version_info >= (3, 43) else "length"
#: The columns of a message that `decode` takes after `attempt`, for a table with the alias `m`. What is too
#: large is empty; then `fault` says so.
COLUMNS = f"""m.key_id, m.published_at, m.id,
    iif({_LENGTH}(m.headers) > {MOST_BYTES}, NULL, m.headers),
    iif({_LENGTH}(m.body) > {MOST_BYTES}, x'', CAST(m.body AS BLOB))"""

_decode_headers = msgspec.json.Decoder(dict[str, str]).decode

#: A message as values of the tables: key, time, id, headers, body.
EncodedMessage = tuple[str, float, str, str | None, bytes]


def encode(message: Message) -> EncodedMessage:
    """Return the message as values of the tables.

    Raise PayloadUnencodable when its id or a header is not Unicode text.
    """
    try:
        message.id.encode()
        headers = msgspec.json.encode(message.headers).decode() if message.headers else None
    except UnicodeEncodeError:
        raise PayloadUnencodable("id and headers of a message must be Unicode text") from None
    return (message.key, message.published_at, message.id, headers, message.body)


def decode(
    names: Mapping[int, str],
    attempt: int,
    key_id: int,
    published_at: float,
    id: str,
    headers: str | None,
    body: bytes,
) -> Message:
    """Return a stored message; `names` are the keys by their numbers.

    SQLite stores what another program writes, whatever the type of the column. So invalid headers are left
    out, an invalid time is 0, and a key that is not in the table is named by its number.
    """
    decoded: dict[str, str] = {}
    if headers:
        with suppress(msgspec.MsgspecError, TypeError, ValueError):
            decoded = _decode_headers(headers)
    if type(id) is not str:
        id = decode_text(id) if isinstance(id, bytes) else str(id)
    if type(published_at) is not float or not isfinite(published_at):
        published_at = 0.0
    return Message(id, names.get(key_id) or f"unknown.{key_id}", body, decoded, published_at, attempt)


def fault(database: Database, seq: int) -> str:
    """Return why the body of a message was not read, empty when it is empty."""
    row = database.execute(f"SELECT {_LENGTH}(body) FROM messages WHERE seq = ?", (seq,)).fetchone()  # noqa: S608  a constant
    size = row[0] if row else 0
    return f"the payload has {size:,} bytes, over the limit of {MAX_BYTES:,}" if size > MOST_BYTES else ""


def rows_at_once(left: int) -> int:
    """Return how many of the rows that are left the next statement takes."""
    # Powers of two: a few different statements serve any number of rows, so SQLite keeps all of them
    # prepared.
    return min(_MAX_ROWS, 1 << left.bit_length() - 1)


def append(database: Database, messages: Sequence[EncodedMessage]) -> None:
    """Add messages at the end of the log."""
    begin, key_ids = 0, database.changes.key_ids
    while left := len(messages) - begin:
        size = rows_at_once(left)
        values: list[object] = []
        for key, *rest in messages[begin : begin + size]:
            key_id = database.keys.id_of(database.connection, key)
            key_ids.add(key_id)
            values.append(key_id)
            values += rest
        database.appended = database.execute(_INSERT[size], values).lastrowid or 0
        begin += size


def end(database: Database) -> int:
    """Return the number of the last message of the log, 0 if there is none."""
    (seq,) = database.execute("SELECT max(seq) FROM messages").fetchone()
    return seq or 0


def last_before(database: Database, start: float) -> int:
    """Return the number of the last message before the first one published at `start` or later.

    `start` is in seconds since the epoch.
    """
    if start <= 0:
        return 0
    row = database.execute(
        "SELECT seq - 1 FROM messages WHERE published_at >= ? ORDER BY seq LIMIT 1", (start,)
    ).fetchone()
    return end(database) if row is None else row[0]


def count(database: Database, pattern: str, after: int) -> int:
    """Return how many messages after number `after` have a key that matches."""
    (n,) = database.execute(
        "SELECT count(*) FROM matching AS k JOIN messages AS m ON m.key_id = k.key_id"
        " WHERE k.pattern = ? AND m.seq > ?",
        (database.keys.stored(database.connection, pattern), after),
    ).fetchone()
    return int(n)


def keys_since(database: Database, after: int, last: int) -> set[int] | None:
    """Return the keys of the messages after number `after` up to the `last`; None when there are many."""
    if last - after > _MANY:
        return None
    # Without the plus sign SQLite would walk over the whole index on keys.
    rows = database.execute("SELECT DISTINCT +key_id FROM messages WHERE seq > ?", (after,))
    return {key_id for (key_id,) in rows}


#: By number of messages, the statement that adds them.
_INSERT = {
    size: "INSERT INTO messages (key_id, published_at, id, headers, body) VALUES "  # noqa: S608  only marks
    + ", ".join(["(?, ?, ?, ?, ?)"] * size)
    for size in ROW_COUNTS
}
