"""Deleting the messages that every subscription of their key has settled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from abe_router.backend import retention
from abe_router.backends.sqlite.database import Database
from abe_router.messages.pattern import matches

#: Messages looked at in one transaction, so that the file is locked for milliseconds only.
PAGE = 1000
#: Pages looked at in one go while none has anything to delete.
PAGES = 100

# A delivery, or a dead letter, keeps its message: both are read from the log.
_PAGE = """
    SELECT seq, published_at,
        EXISTS (SELECT 1 FROM letters AS l WHERE l.seq = m.seq)
        OR EXISTS (
            SELECT 1 FROM json_each(?) AS s JOIN deliveries AS d ON d.sid = s.value AND d.seq = m.seq)
    FROM messages AS m WHERE kid = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""


# Keys without messages, of which there may be many more, are passed over.
_NEXT_KEY = "SELECT min(kid) FROM messages WHERE kid >= ?"


class _Readers(NamedTuple):
    """The subscriptions of a key, as the list that SQL takes, and how far all of them have got."""

    sids: str
    cursor: int


class Place(NamedTuple):
    """A key, and the message of it that was looked at last."""

    kid: int
    after: int


START = Place(0, 0)


class _Page(NamedTuple):
    """What of a page of the log is settled, how many messages it has, and where the next one begins."""

    settled: list[int]
    seen: int
    next: Place


class Trimmer:
    """Goes through the keys that have messages and subscriptions, in pages of the log, from a place on.

    `look` finds the next page with something to delete, without a lock; `delete` looks at it, and at what
    follows, anew within the transaction that deletes, so what was subscribed or replayed meanwhile counts.
    """

    def __init__(self, retain: Mapping[str, float], place: Place) -> None:
        self._retain = retain
        #: Where the next one goes on: after the last page, or from the start.
        self.place = place
        #: How many messages were deleted.
        self.deleted = 0
        #: Whether the end was reached.
        self.done = False

    def look(self, database: Database) -> bool:
        """Go on to the next page that has something to delete; False if none of a few pages has."""
        for page in islice(self._pages(database), PAGES):
            if page.settled:
                return True
            self.place = page.next
        return False

    def delete(self, database: Database) -> None:
        """Delete what is settled of about a page; of keys that have little, it takes several."""
        settled: list[int] = []
        seen = 0
        for page in islice(self._pages(database), PAGES):
            settled += page.settled
            seen += page.seen
            self.place = page.next
            if seen >= PAGE:
                break
        # Should the commit fail, only the count and the place of this pass are off, and another follows.
        self.deleted += database.execute(
            "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(settled),)
        ).rowcount

    def _pages(self, database: Database) -> Iterator[_Page]:
        """Yield pages from the place on; at the end, begin anew with the next pass."""
        subscriptions = _subscriptions(database)
        kid, after = self.place
        while True:
            (found,) = database.execute(_NEXT_KEY, (kid,)).fetchone()
            if found is None:
                break
            kid, after = found, after if found == kid else 0
            key = database.keys.names.get(kid)
            if key is not None and (readers := _readers(subscriptions, key)) is not None:
                page = self._page(database, Place(kid, after), readers)
                yield page
                kid, after = page.next
            else:
                kid, after = kid + 1, 0
        self.place, self.done = START, True

    def _page(self, database: Database, place: Place, readers: _Readers) -> _Page:
        """Look at one page of a key."""
        kid, after = place
        seconds = retention(self._retain, database.keys.names[kid])
        young = time.time() - seconds
        rows = database.execute(_PAGE, (readers.sids, kid, after, readers.cursor, PAGE)).fetchall()
        settled: list[int] = []
        for seq, published_at, is_held in rows:
            if seconds and published_at > young:
                break  # and so are those that follow
            if not is_held:
                settled.append(seq)
        else:
            if len(rows) == PAGE:
                return _Page(settled, PAGE, Place(kid, rows[-1][0]))
        return _Page(settled, len(rows), Place(kid + 1, 0))


def _subscriptions(database: Database) -> list[tuple[int, int, str]]:
    return database.execute(
        "SELECT sid, cursor, pattern FROM subscriptions WHERE prefix = ?", (database.prefix,)
    ).fetchall()


def _readers(subscriptions: Iterable[tuple[int, int, str]], key: str) -> _Readers | None:
    """Return those that get the messages of the key, None when there are none."""
    found = [(sid, cursor) for sid, cursor, pattern in subscriptions if matches(pattern, key)]
    if not found:
        return None
    return _Readers(json.dumps([sid for sid, _ in found]), min(cursor for _, cursor in found))
