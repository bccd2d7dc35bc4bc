"""Retention: deleting old messages that every subscription of their key has settled.

How long the callers of `trim` keep messages is stored in the file, because each must respect the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from abe_router.backend import RETAIN_TTL, retention
from abe_router.backends.sqlite.database import Database
from abe_router.messages.pattern import matches

#: How many messages one transaction looks at, so that the file is locked for milliseconds only.
PAGE = 1000
#: How many pages one transaction looks at while none has anything to delete.
PAGES = 100
#: The age, in seconds, from which a stored retention is stored again.
REFRESH_AFTER = 3600.0

# The messages of a key, each with whether a dead letter or a delivery of a reader still needs it.
_PAGE = """
    SELECT seq, CAST(published_at AS REAL),
        EXISTS (SELECT 1 FROM dead_letters AS l WHERE l.seq = m.seq)
        OR EXISTS (
            SELECT 1 FROM json_each(?) AS s JOIN deliveries AS d ON d.sid = s.value AND d.seq = m.seq)
    FROM messages AS m WHERE key_id = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""
# Skips keys without messages, of which there may be many.
_NEXT_KEY = "SELECT min(key_id) FROM messages WHERE key_id >= ? AND key_id < 9e18"

#: By pattern and seconds, until when that retention counts, in seconds since the epoch.
StoredRetention = Mapping[tuple[str, float], float]


def stored(database: Database) -> StoredRetention:
    """Return the retention that counts now."""
    rows = database.execute(
        "SELECT CAST(pattern AS TEXT), CAST(seconds AS REAL), CAST(expires_at AS REAL) FROM retention"
        " WHERE prefix = ? AND expires_at > ?",
        (database.prefix, time.time()),
    )
    return {(pattern, seconds): expires_at for pattern, seconds, expires_at in rows.fetchall()}


def store(database: Database, retain: Mapping[str, float]) -> None:
    """Let `retain`, by pattern in seconds, count from now on."""
    now = time.time()
    database.execute("DELETE FROM retention WHERE prefix = ? AND expires_at <= ?", (database.prefix, now))
    database.execute_many(
        "INSERT OR REPLACE INTO retention (prefix, pattern, seconds, expires_at) VALUES (?, ?, ?, ?)",
        [(database.prefix, pattern, seconds, now + RETAIN_TTL) for pattern, seconds in retain.items()],
    )


def is_fresh(stored: StoredRetention, retain: Mapping[str, float]) -> bool:
    """Return whether all of `retain` was stored not long ago, so that nothing has to be written."""
    old = time.time() + RETAIN_TTL - REFRESH_AFTER
    return all(stored.get(item, 0.0) > old for item in retain.items())


def longest(stored: StoredRetention, retain: Mapping[str, float]) -> dict[str, float]:
    """Return by pattern the longest retention, in seconds, of all callers."""
    found = dict(retain)
    for pattern, seconds in stored:
        found[pattern] = max(seconds, found.get(pattern, 0.0))
    return found


class _Readers(NamedTuple):
    """The subscriptions of a key, as a JSON array, and the lowest of their cursors."""

    sids: str
    cursor: int


class Position(NamedTuple):
    """A key, and the number of its last message that was looked at."""

    key_id: int
    after: int


START = Position(0, 0)


class _Page(NamedTuple):
    """The messages of a page that can be deleted, its size, and where the next one begins."""

    settled: list[int]
    seen: int
    next: Position


class Trimmer:
    """Goes through the keys that have messages and subscriptions, in pages of the log, from a position on.

    `find` finds the next page with something to delete, without a lock. `delete` looks at that page and those
    that follow again, in the transaction that deletes, so that a subscription or replay in between counts.
    """

    def __init__(self, retain: Mapping[str, float], position: Position) -> None:
        self._retain = retain
        #: Where the next trimmer goes on: after the last page, or at the start.
        self.position = position
        #: How many messages were deleted.
        self.deleted = 0
        #: Whether the end was reached.
        self.done = False

    def find(self, database: Database) -> bool:
        """Go on to the next page that has something to delete; return False if none of PAGES pages has."""
        for page in islice(self._pages(database), PAGES):
            if page.settled:
                return True
            self.position = page.next
        return False

    def delete(self, database: Database) -> None:
        """Delete what is settled in about PAGE messages, which may be those of several keys."""
        settled: list[int] = []
        seen = 0
        for page in islice(self._pages(database), PAGES):
            settled += page.settled
            seen += page.seen
            self.position = page.next
            if seen >= PAGE:
                break
        # If the commit fails, only the count and the position of this pass are wrong, and another follows.
        self.deleted += database.execute(
            "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(settled),)
        ).rowcount

    def _pages(self, database: Database) -> Iterator[_Page]:
        """Yield the pages from the position on; at the end, set the position for the next pass."""
        subscriptions = _subscriptions(database)
        key_id, after = self.position
        while True:
            (found,) = database.execute(_NEXT_KEY, (key_id,)).fetchone()
            if found is None:
                break
            key_id, after = found, after if found == key_id else 0
            key = database.keys.names.get(key_id)
            if key is not None and (readers := _readers(subscriptions, key)) is not None:
                page = self._page(database, Position(key_id, after), readers)
                yield page
                key_id, after = page.next
            else:
                key_id, after = key_id + 1, 0
        self.position, self.done = START, True

    def _page(self, database: Database, position: Position, readers: _Readers) -> _Page:
        """Look at one page of a key."""
        key_id, after = position
        seconds = retention(self._retain, database.keys.names[key_id])
        young = time.time() - seconds
        rows = database.execute(_PAGE, (readers.sids, key_id, after, readers.cursor, PAGE)).fetchall()
        settled: list[int] = []
        for seq, published_at, is_needed in rows:
            if seconds and published_at > young:
                break  # and so are those that follow
            if not is_needed:
                settled.append(seq)
        else:
            if len(rows) == PAGE:
                return _Page(settled, PAGE, Position(key_id, rows[-1][0]))
        return _Page(settled, len(rows), Position(key_id + 1, 0))


def _subscriptions(database: Database) -> list[tuple[int, int, str]]:
    return database.execute(
        "SELECT sid, CAST(cursor AS INTEGER), CAST(pattern AS TEXT) FROM subscriptions WHERE prefix = ?",
        (database.prefix,),
    ).fetchall()


def _readers(subscriptions: Iterable[tuple[int, int, str]], key: str) -> _Readers | None:
    """Return the subscriptions whose pattern matches the key, None when there are none."""
    found = [(sid, cursor) for sid, cursor, pattern in subscriptions if matches(pattern, key)]
    if not found:
        return None
    return _Readers(json.dumps([sid for sid, _ in found]), min(cursor for _, cursor in found))
