"""The ids by which messages are known again, in the transaction that adds the messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

#: Most ids that are forgotten in one transaction beyond as many as it adds.
PAGE = 500

#: By number of ids, the statement that says which are remembered, as their places in one row: after each row
#: the thread must win the interpreter's lock back.
_KNOWN = {
    size: "WITH asked (place, kid, id) AS (VALUES "  # noqa: S608  only numbers and marks follow
    + ", ".join(f"({place}, ?, ?)" for place in range(size))
    + ") SELECT group_concat(place) FROM asked JOIN ids USING (kid, id) WHERE until > ?"
    for size in log.SIZES
}
#: By number of ids, the statement that remembers them; what is due to be forgotten may still be there.
_REMEMBER = {
    size: "INSERT OR REPLACE INTO ids (kid, id, until) VALUES "  # noqa: S608  only marks follow
    + ", ".join(["(?, ?, ?)"] * size)
    for size in log.SIZES
}


class Windowed(NamedTuple):
    """A message as values of the tables, and for how many seconds its id is remembered."""

    message: log.Encoded
    window: float


def append(database: Database, messages: Sequence[Windowed]) -> list[int]:
    """Add those messages whose id is not remembered; return the places of the others."""
    number, connection = database.keys.number, database.connection
    named = {
        place: (number(connection, message[0]), message[2])
        for place, (message, window) in enumerate(messages)
        if window
    }
    known = _known(database, list(dict.fromkeys(named.values())))
    new: dict[tuple[int, str], float] = {}
    passed_over, kept, now = [], [], time.time()
    for place, (message, window) in enumerate(messages):
        if window:
            name = named[place]
            if name in known or name in new:
                passed_over.append(place)
                continue
            new[name] = now + window
        kept.append(message)
    log.append(database, kept)
    _remember(database, [(*name, until) for name, until in new.items()])
    if named:
        forget(database, len(named) + PAGE)
    return passed_over


def _known(database: Database, names: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of the ids, each of a key, that are remembered."""
    begin, now, known = 0, time.time(), set[tuple[int, str]]()
    while left := len(names) - begin:
        size = log.at_once(left)
        values = [value for name in names[begin : begin + size] for value in name]
        (places,) = database.execute(_KNOWN[size], [*values, now]).fetchone()
        known.update(names[begin + int(place)] for place in (places or "").split(",") if place)
        begin += size
    return known


def _remember(database: Database, rows: Sequence[tuple[int, str, float]]) -> None:
    """Remember ids of keys, each until a time."""
    begin = 0
    while left := len(rows) - begin:
        size = log.at_once(left)
        database.execute(_REMEMBER[size], [value for row in rows[begin : begin + size] for value in row])
        begin += size


def is_any_due(database: Database) -> bool:
    """Say whether there are ids that may be forgotten."""
    due = database.execute("SELECT 1 FROM ids WHERE until <= ? LIMIT 1", (time.time(),))
    return due.fetchone() is not None


def forget(database: Database, limit: int) -> None:
    """Forget at most `limit` ids that are due."""
    database.execute(
        """
        DELETE FROM ids WHERE (kid, id) IN
            (SELECT kid, id FROM ids WHERE until <= ? ORDER BY until LIMIT ?)""",
        (time.time(), limit),
    )
