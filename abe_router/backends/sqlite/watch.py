"""What other processes committed to the file, noticed by asking SQLite."""

from __future__ import annotations

import sqlite3
import time

from abe_router.backends.sqlite import lease, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.news import News

#: How often to ask, in seconds: at first after there was something for us, and at last when nothing comes.
#: An answer costs 2 microseconds, but waking the thread for it up to 100.
FIRST, LAST = 0.002, 0.025
#: After others' commits what falls due is looked at, and then not again for so many times as long as that
#: took: at once with few subscriptions, and with thousands for no more than 1 % of the time.
_REST = 100


class Watch:
    """Compares the file with what was seen of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self._end = 0
        self._stale = False
        self._look_at_due = 0.0
        #: How long until it is worth asking again, in seconds.
        self.interval = FIRST

    def look(self) -> News | None:
        """Return what others have made available, None if they committed nothing; may raise sqlite3.Error."""
        database = self._database
        database.open()
        version = self._ask()
        if database.connection is self._connection and version == self._version:
            return None
        news = News()
        with database.reading():
            kids = log.keys_since(database, self._end) if database.connection is self._connection else None
            end = log.end(database)
        if kids is None:
            news.all = True
        else:
            news.kids = kids
        self._connection, self._version, self._end = database.connection, version, end
        self._stale = True
        return news

    def adapt(self, *, found: bool) -> None:
        """Ask sooner when there was something for us, and otherwise later and later."""
        self.interval = FIRST if found else min(self.interval * 1.5, LAST)

    def due(self) -> dict[int, float | None] | None:
        """Return when each subscription first falls due, as far as others' commits may have changed it.

        None means that nothing changed or it was looked at just now. May raise sqlite3.Error.
        """
        began = time.monotonic()
        if not self._stale or began < self._look_at_due:
            return None
        with self._database.reading():
            due = lease.first_due(self._database)
        ended = time.monotonic()
        self._stale, self._look_at_due = False, ended + _REST * (ended - began)
        return due

    def wrote(self) -> None:
        """Take our own messages for seen, just before the commit of the transaction that added them."""
        if self._database.connection is self._connection and self._ask() == self._version:
            self._end = log.end(self._database)

    def _ask(self) -> int:
        """Return a number that changes when another connection commits, but not when this one does."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(version)
