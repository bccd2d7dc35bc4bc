"""Deduplication: message ids are looked up and remembered in the transaction that adds the messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

#: The most expired ids that one transaction deletes beyond as many as it adds.
PAGE = 500

#: By number of ids, the statement that returns the indices of the remembered ones. They come in one row:
#: after each row the thread must get the interpreter's lock back.
_FIND = {
    size: "WITH asked (position, key_id, id) AS (VALUES "  # noqa: S608  only numbers and marks follow
    + ", ".join(f"({index}, ?, ?)" for index in range(size))
    + ") SELECT group_concat(position) FROM asked JOIN dedupe_ids USING (key_id, id) WHERE expires_at > ?"
    for size in log.ROW_COUNTS
}
#: By number of ids, the statement that remembers them. An expired id may still be in the table.
_REMEMBER = {
    size: "INSERT OR REPLACE INTO dedupe_ids (key_id, id, expires_at) VALUES "  # noqa: S608  only marks
    + ", ".join(["(?, ?, ?)"] * size)
    for size in log.ROW_COUNTS
}


class WindowedMessage(NamedTuple):
    """A message as values of the tables, and its deduplication window in seconds, 0 for none."""

    message: log.EncodedMessage
    window: float


def append(database: Database, messages: Sequence[WindowedMessage]) -> list[int]:
    """Add the messages whose id is not remembered; return the indices of the duplicates."""
    id_of, connection = database.keys.id_of, database.connection
    named = {
        index: (id_of(connection, message[0]), message[2])
        for index, (message, window) in enumerate(messages)
        if window
    }
    known = _remembered(database, list(dict.fromkeys(named.values())))
    new: dict[tuple[int, str], float] = {}
    duplicates, kept, now = [], [], time.time()
    for index, (message, window) in enumerate(messages):
        if window:
            name = named[index]
            if name in known or name in new:
                duplicates.append(index)
                continue
            new[name] = now + window
        kept.append(message)
    log.append(database, kept)
    _remember(database, [(*name, expires_at) for name, expires_at in new.items()])
    if named:
        delete_expired(database, len(named) + PAGE)
    return duplicates


def _remembered(database: Database, names: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of the ids, each with its key, that are remembered."""
    begin, now, known = 0, time.time(), set[tuple[int, str]]()
    while left := len(names) - begin:
        size = log.rows_at_once(left)
        values = [value for name in names[begin : begin + size] for value in name]
        (indices,) = database.execute(_FIND[size], [*values, now]).fetchone()
        known.update(names[begin + int(index)] for index in (indices or "").split(",") if index)
        begin += size
    return known


def _remember(database: Database, rows: Sequence[tuple[int, str, float]]) -> None:
    """Remember ids, each with its key, until a time."""
    begin = 0
    while left := len(rows) - begin:
        size = log.rows_at_once(left)
        database.execute(_REMEMBER[size], [value for row in rows[begin : begin + size] for value in row])
        begin += size


def is_any_expired(database: Database) -> bool:
    """Return whether there are expired ids."""
    expired = database.execute("SELECT 1 FROM dedupe_ids WHERE expires_at <= ? LIMIT 1", (time.time(),))
    return expired.fetchone() is not None


def delete_expired(database: Database, limit: int) -> None:
    """Delete at most `limit` expired ids."""
    database.execute(
        """
        DELETE FROM dedupe_ids WHERE (key_id, id) IN
            (SELECT key_id, id FROM dedupe_ids WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)""",
        (time.time(), limit),
    )
