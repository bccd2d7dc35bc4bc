"""The notifier: keeps the fetches that wait, and finds those that are worth another try.

A waiting fetch is tried again

- when a transaction of this connection makes something available to it (`Notifier.concerned`),
- when another process commits messages that match its pattern, or anything that may fall due earlier, which
  `Notifier.poll` finds by asking SQLite: when the process has touched the log, and at intervals,
- when a delivery falls due, or its deadline is reached (`Fetch.try_at`).
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from typing import TypeVar

from abe_router.backends.sqlite import lease, log
from abe_router.backends.sqlite.changes import Changes
from abe_router.backends.sqlite.database import Database, is_busy
from abe_router.backends.sqlite.inbox import LogWatch
from abe_router.backends.sqlite.keys import Keys
from abe_router.backends.sqlite.operations import Fetch
from abe_router.backoff import Backoff
from abe_router.errors import BackendError
from abe_router.messages.pattern import is_wild, matches

T = TypeVar("T")
#: How often SQLite is asked for commits of other processes, in seconds: first, once there was something, and
#: last, when nothing comes. An answer costs 2 microseconds, but waking the thread for it up to 100.
FIRST_INTERVAL, LAST_INTERVAL = 0.002, 0.025
#: The same while each commit is announced by a touch of the log. A process may be killed before the touch.
WATCHED_INTERVAL = 0.1
#: After such commits the due times of all subscriptions are read, and then not again for this many times as
#: long as that took: at once with few subscriptions, and with thousands for at most 1 % of the time.
_DUE_REST = 100


class Waiters:
    """The waiting fetches, by pattern and by subscription. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, set[Fetch]] = {}
        self._by_subscription: dict[int, set[Fetch]] = {}
        self._wild: set[str] = set()
        #: No fetch is to be tried before this time. It may be too early, and is then corrected by `due`.
        self.next_try = math.inf

    def __bool__(self) -> bool:
        return bool(self._by_pattern)

    def __iter__(self) -> Iterator[Fetch]:
        return (fetch for fetches in self._by_pattern.values() for fetch in fetches)

    def add(self, fetch: Fetch) -> None:
        """Add a fetch."""
        pattern = fetch.spec.pattern
        self._by_pattern.setdefault(pattern, set()).add(fetch)
        self._by_subscription.setdefault(fetch.sid, set()).add(fetch)
        if is_wild(pattern):
            self._wild.add(pattern)
        self.next_try = min(self.next_try, fetch.try_at)

    def remove(self, fetch: Fetch) -> None:
        """Remove a fetch; without effect when it is not waiting."""
        pattern = fetch.spec.pattern
        if _discard(self._by_pattern, pattern, fetch):
            self._wild.discard(pattern)
        _discard(self._by_subscription, fetch.sid, fetch)

    def concerned(self, changes: Changes, keys: Keys) -> list[Fetch]:
        """Return the fetches that can claim something now; note when others can."""
        if changes.everything:
            return list(self)
        found: set[Fetch] = set()
        for key_id in changes.key_ids:
            key = keys.names.get(key_id, "")  # none when it has another prefix
            found.update(self._by_pattern.get(key, ()))
            for pattern in self._wild:
                if matches(pattern, key):
                    found.update(self._by_pattern[pattern])
        now = time.monotonic()
        for sid, due_at in changes.due_at.items():
            for fetch in self._by_subscription.get(sid, ()):
                if self._add_due(fetch, due_at) <= now:
                    found.add(fetch)
        return list(found)

    def due(self) -> list[Fetch]:
        """Return the fetches whose time has come."""
        now = time.monotonic()
        if now < self.next_try:
            return []
        found = [fetch for fetch in self if fetch.try_at <= now]
        self.next_try = min((fetch.try_at for fetch in self if fetch.try_at > now), default=math.inf)
        return found

    def compare(self, due_at: Mapping[int, float | None]) -> list[Fetch]:
        """Note when each subscription falls due, None for never.

        Return the fetches that are due, and those whose subscription was dropped.
        """
        now, found = time.monotonic(), []
        for fetch in self:
            if fetch.sid not in due_at:
                is_found = True
            else:
                at = due_at[fetch.sid]
                is_found = at is not None and self._add_due(fetch, at) <= now
            if is_found:
                found.append(fetch)
        return found

    def _add_due(self, fetch: Fetch, due_at: float) -> float:
        fetch.add_due(due_at)
        self.next_try = min(self.next_try, fetch.try_at)
        return fetch.try_at


class Notifier:
    """The waiting fetches of a connection, and what the file showed when it was last looked at."""

    def __init__(self, database: Database, watch: LogWatch) -> None:
        self.waiters = Waiters()
        self._database = database
        self._watch = watch
        #: Whether the last messages of another process were announced by a touch of the log.
        self._is_watched = False
        #: The connection, its number of commits by others, and the end of the log, at the last look.
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = 0
        self._end = 0
        #: Whether others committed since the due times were read, and when they may be read again.
        self._due_is_stale = False
        self._read_due_at = 0.0
        self._backoff = Backoff(FIRST_INTERVAL, LAST_INTERVAL, factor=1.5, jitter=False)
        self._interval = self._backoff.next()

    def timeout(self) -> float | None:
        """Return in how many seconds to call `poll`, None when no fetch waits."""
        if not self.waiters:
            return None
        return max(0.0, min(self._interval, self.waiters.next_try - time.monotonic()))

    def poll(self) -> list[Fetch]:
        """Take out and return the fetches that time or commits of other processes make worth a try.

        Those that would find something are marked to claim without another look. All looks at one commit of
        another process are one transaction. Raise BackendError or sqlite3.Error when the file cannot be read.
        """
        found = set(self.waiters.due())
        try:
            was_touched = self._watch.was_touched()
            if self._is_changed():
                with self._database.reading():
                    changes = self._foreign_changes()
                    if changes.is_available:
                        self._is_watched = was_touched
                    found.update(self.waiters.concerned(changes, self._database.keys))
                    found.update(self._due_by_others())
                    found = {fetch for fetch in found if self._is_worth_a_try(fetch)}
            else:
                found.update(self._due_by_others())
        except sqlite3.OperationalError as error:
            if not is_busy(error):  # if it is, the next poll finds the changes
                raise
        if found:
            self._backoff.reset()
        self._interval = WATCHED_INTERVAL if self._is_watched else self._backoff.next()
        return self._take_out(found)

    def close(self) -> None:
        """Stop watching the log."""
        self._watch.close()

    def concerned(self) -> list[Fetch]:
        """Take out and return the fetches that the last transaction of this connection made worth a try."""
        return self._take_out(self.waiters.concerned(self._database.changes, self._database.keys))

    def note_due(self) -> None:
        """Note when the deliveries that the last transaction leased fall due."""
        self.waiters.concerned(self._database.changes, self._database.keys)

    def before_commit(self) -> None:
        """Count the messages of the open transaction as seen, unless others committed since the last look."""
        database = self._database
        if (
            database.appended
            and database.connection is self._connection
            and database.version == self._version
        ):
            self._end = database.appended

    def _take_out(self, found: set[Fetch] | list[Fetch]) -> list[Fetch]:
        if not found:
            return []
        for fetch in found:
            self.waiters.remove(fetch)
        return [fetch for fetch in found if not fetch.future.done()]

    def _is_changed(self) -> bool:
        """Return whether other processes committed since the last look, or the file is another one."""
        self._database.open()
        return (
            self._database.connection is not self._connection
            or self._database.data_version() != self._version
        )

    def _foreign_changes(self) -> Changes:
        """Return what other processes made available since the last look; called in a transaction."""
        database, changes = self._database, Changes()
        is_same = database.connection is self._connection  # the transaction may have opened the file anew
        end = log.end(database)
        key_ids = log.keys_since(database, self._end, end) if is_same else None
        database.last_appended = max(database.last_appended, end)
        if key_ids is None:
            changes.everything = True
        else:
            changes.key_ids = key_ids
        if not is_same:
            self._watch.follow(database.log)
        self._connection, self._version, self._end = database.connection, database.version, end
        self._due_is_stale = True
        return changes

    def _is_worth_a_try(self, fetch: Fetch) -> bool:
        """Return whether to try a fetch: it would find something, or its time is over. Otherwise it waits."""
        if fetch.future.done() or fetch.deadline <= time.monotonic():
            return True
        try:
            can_claim = fetch.can_claim(self._database)
        except (BackendError, sqlite3.Error):
            return True  # it fails alone when it is tried
        fetch.reads = not can_claim
        self.waiters.add(fetch)  # it may be due at another time now
        return can_claim

    def _due_by_others(self) -> list[Fetch]:
        due_at = self._foreign_due()
        return [] if due_at is None else self.waiters.compare(due_at)

    def _foreign_due(self) -> dict[int, float | None] | None:
        """Return when each subscription first falls due, as far as commits of others may have changed it.

        None means that nothing changed, or that it was read too short a time ago.
        """
        started = time.monotonic()
        if not self._due_is_stale or started < self._read_due_at:
            return None
        with self._database.reading():
            due_at = lease.first_due(self._database)
        ended = time.monotonic()
        self._due_is_stale, self._read_due_at = False, ended + _DUE_REST * (ended - started)
        return due_at


def _discard(index: dict[T, set[Fetch]], name: T, fetch: Fetch) -> bool:
    """Remove the fetch from the index; return whether nothing is left under its name."""
    fetches = index.get(name)
    if fetches is not None:
        fetches.discard(fetch)
        if fetches:
            return False
        del index[name]
    return True
