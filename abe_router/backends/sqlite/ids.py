"""The ids by which messages are known again, in the transaction that adds the messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

#: Most ids that are forgotten in one transaction beyond as many as it adds.
PAGE = 500

#: By number of ids, the statement that remembers them. A row that is due is as good as none. `RETURNING`
#: names each row that is written, so of several messages with one id, in whatever process, one.
_REMEMBER = {
    size: "INSERT INTO ids (kid, id, until) VALUES "  # noqa: S608  only marks follow
    + ", ".join(["(?, ?, ?)"] * size)
    + " ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ? RETURNING kid, id"
    for size in log.SIZES
}


class Windowed(NamedTuple):
    """A message as values of the tables, and for how many seconds its id is remembered."""

    message: log.Encoded
    window: float


def append(database: Database, messages: Sequence[Windowed]) -> list[int]:
    """Add those messages whose id is not remembered; return the places of the others."""
    named = [
        (database.keys.number(database.connection, message[0]), message[2], window)
        for message, window in messages
    ]
    new = _remember(database, [each for each in named if each[2]])
    kept: list[log.Encoded] = []
    passed_over: list[int] = []
    for place, (kid, id, window) in enumerate(named):
        if window and (kid, id) not in new:
            passed_over.append(place)
            continue
        if window:
            new.remove((kid, id))  # of several with one id the first is kept
        kept.append(messages[place].message)
    log.append(database, kept)
    return passed_over


def _remember(database: Database, named: Sequence[tuple[int, str, float]]) -> set[tuple[int, str]]:
    """Remember ids of keys, each for so many seconds; return those that were not remembered yet."""
    begin, now, new = 0, time.time(), set[tuple[int, str]]()
    while left := len(named) - begin:
        size = log.at_once(left)
        values: list[object] = []
        for kid, id, window in named[begin : begin + size]:
            values += (kid, id, now + window)
        new.update(database.execute(_REMEMBER[size], [*values, now]).fetchall())
        begin += size
    if named:
        forget(database, len(named) + PAGE)
    return new


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
