"""Deleting the messages that every subscription of their key has settled."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import NamedTuple

from abe_router.backend import retention
from abe_router.backends.sqlite.database import Database
from abe_router.pattern import matches

#: Messages looked at in one transaction, so that the file is locked for milliseconds only.
PAGE = 500

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


class Trimmer:
    """Goes once through the keys that have subscriptions, in pages of the log.

    `look` finds the next page with something to delete, without a lock; `delete` looks at that page anew
    within the transaction that deletes, so that what was subscribed or replayed meanwhile counts.
    """

    def __init__(self, retain: Mapping[str, float]) -> None:
        self._retain = retain
        self._kid = self._after = 0
        #: How many messages were deleted.
        self.deleted = 0

    def look(self, database: Database) -> bool:
        """Go on to the next page that has something to delete; False at the end."""
        for kid in sorted(kid for kid in database.keys.names if kid >= self._kid):
            if kid > self._kid:
                self._kid, self._after = kid, 0
            readers = _readers(database, database.keys.names[kid])
            while readers is not None:
                settled, last = self._page(database, readers)
                if settled:
                    return True
                if last is None:
                    break
                self._after = last
        return False

    def delete(self, database: Database) -> None:
        """Delete what is settled of the page."""
        readers = _readers(database, database.keys.names[self._kid])
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


def _readers(database: Database, key: str) -> _Readers | None:
    """Return the subscriptions that get the messages of the key, None when there are none."""
    rows = database.execute(
        "SELECT sid, cursor, pattern FROM subscriptions WHERE prefix = ?", (database.prefix,)
    ).fetchall()
    found = [(sid, cursor) for sid, cursor, pattern in rows if matches(pattern, key)]
    if not found:
        return None
    return _Readers(json.dumps([sid for sid, _ in found]), min(cursor for _, cursor in found))
