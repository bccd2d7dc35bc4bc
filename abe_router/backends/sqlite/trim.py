"""Deleting the messages that every subscription of their key has settled."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from abe_router.backend import retention
from abe_router.backends.sqlite.database import Database
from abe_router.pattern import matches

#: Messages looked at in one transaction, so that the file is locked for milliseconds only.
PAGE = 500
#: Pages looked at in one go while none has anything to delete.
PAGES = 100

# A delivery, or a dead letter, keeps its message: both are read from the log.
_PAGE = """
    SELECT seq, published_at,
        EXISTS (SELECT 1 FROM letters AS l WHERE l.seq = m.seq)
        OR EXISTS (
            SELECT 1 FROM json_each(?) AS s JOIN deliveries AS d ON d.sid = s.value AND d.seq = m.seq)
    FROM messages AS m WHERE kid = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""


class _Readers(NamedTuple):
    """The subscriptions of a key, as the list that SQL takes, and how far all of them have got."""

    sids: str
    cursor: int


class Place(NamedTuple):
    """A key, and the message of it that was looked at last."""

    kid: int
    after: int


START = Place(0, 0)


class Trimmer:
    """Goes through the keys that have subscriptions, in pages of the log, from a place on.

    `look` finds the next page with something to delete, without a lock; `delete` looks at that page anew
    within the transaction that deletes, so that what was subscribed or replayed meanwhile counts.
    """

    def __init__(self, retain: Mapping[str, float], place: Place) -> None:
        self._retain = retain
        self._kid, self._after = place
        #: How many messages were deleted.
        self.deleted = 0
        #: Whether the end was reached.
        self.done = False

    @property
    def place(self) -> Place:
        """Where the next one goes on: after the last page, or from the start."""
        return START if self.done else Place(self._kid, self._after)

    def look(self, database: Database) -> bool:
        """Go on to the next page that has something to delete; False if none of a few pages has."""
        subscriptions = _subscriptions(database)
        pages = 0
        for kid in sorted(kid for kid in database.keys.names if kid >= self._kid):
            if kid > self._kid:
                self._kid, self._after = kid, 0
            readers = _readers(subscriptions, database.keys.names[kid])
            while readers is not None:
                if pages == PAGES:
                    return False
                pages += 1
                settled, last = self._page(database, readers)
                if settled:
                    return True
                if last is None:
                    break
                self._after = last
        self.done = True
        return False

    def delete(self, database: Database) -> None:
        """Delete what is settled of the page."""
        readers = _readers(_subscriptions(database), database.keys.names[self._kid])
        if readers is None:
            return
        settled, last = self._page(database, readers)
        gone = database.execute(
            "DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(settled),)
        ).rowcount
        # Should the commit fail, only the count and the place of this pass are off, and another follows.
        self.deleted += gone
        if last is not None:
            self._after = last

    def _page(self, database: Database, readers: _Readers) -> tuple[list[int], int | None]:
        """Return what is settled of the page, and its last message, None when no page follows."""
        seconds = retention(self._retain, database.keys.names[self._kid])
        young = time.time() - seconds
        values = (readers.sids, self._kid, self._after, readers.cursor, PAGE)
        rows = database.execute(_PAGE, values).fetchall()
        settled: list[int] = []
        for seq, published_at, is_held in rows:
            if seconds and published_at > young:
                return settled, None  # and so are those that follow
            if not is_held:
                settled.append(seq)
        return settled, rows[-1][0] if len(rows) == PAGE else None


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
