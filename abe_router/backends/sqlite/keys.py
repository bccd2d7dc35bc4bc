"""The routing keys of the file under one prefix, cached beside the table."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from abe_router.messages.pattern import is_wild, matches

#: As bytes, because another program may write text that is not UTF-8.
_NEW = """
    SELECT key_id, CAST(prefix AS BLOB), CAST(key AS BLOB) FROM keys
    WHERE key_id > ? ORDER BY key_id"""
#: A table that each connection has for itself: the numbers of the keys that match a pattern. A query that is
#: given ten thousand numbers anew takes milliseconds to read them.
_MATCHING = """
    CREATE TEMP TABLE matching (
        pattern INTEGER NOT NULL,
        key_id INTEGER NOT NULL,
        PRIMARY KEY (pattern, key_id)
    ) WITHOUT ROWID"""


def decode_text(text: bytes) -> str:
    """Return text of the file, with replacement characters where it is not UTF-8."""
    return text.decode("utf-8", "replace")


class Keys:
    """Maps each key to its number and back, and each pattern to the keys it matches.

    The cache holds only what the current transaction of the connection shows. After a rollback it must be
    cleared, because a number that was never committed may be given to another key. The table `matching`
    holds a part of the cache, and is emptied with it.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.clear()

    @staticmethod
    def prepare(connection: sqlite3.Connection) -> None:
        """Create the table `matching` for a new connection."""
        connection.execute("PRAGMA temp_store = MEMORY")  # then it needs no folder
        connection.execute(_MATCHING)

    def clear(self) -> None:
        """Empty the cache."""
        self._newest = 0
        self.names: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._matching: dict[str, list[int]] = {}
        #: By pattern, its number in the table `matching`, and how many of its keys are there.
        self._stored: dict[str, tuple[int, int]] = {}

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Add the keys that any process has added to the table since."""
        rows = connection.execute(_NEW, (self._newest,))
        for key_id, prefix, key in rows.fetchall():
            self._newest = key_id
            if decode_text(prefix) == self._prefix:
                self._add(key_id, decode_text(key))

    def id_of(self, connection: sqlite3.Connection, key: str) -> int:
        """Return the number of the key; add the key to the table when it is new."""
        key_id = self._ids.get(key)
        if key_id is None:
            added = connection.execute("INSERT INTO keys (prefix, key) VALUES (?, ?)", (self._prefix, key))
            key_id = self._newest = added.lastrowid or 0
            self._add(key_id, key)
        return key_id

    def matching(self, pattern: str) -> Sequence[int]:
        """Return the numbers of the keys that match, in ascending order."""
        if not is_wild(pattern):
            key_id = self._ids.get(pattern)
            return () if key_id is None else (key_id,)
        found = self._matching.get(pattern)
        if found is None:
            found = [key_id for key_id, key in self.names.items() if matches(pattern, key)]
            self._matching[pattern] = found
        return found

    def stored(self, connection: sqlite3.Connection, pattern: str) -> int:
        """Return the number of a pattern, for which the table `matching` has the keys that match."""
        if not self._stored:
            connection.execute("DELETE FROM matching")
        found = self.matching(pattern)
        number, count = self._stored.setdefault(pattern, (len(self._stored), 0))
        if count < len(found):
            new = ((number, key_id) for key_id in found[count:])
            connection.executemany("INSERT INTO matching VALUES (?, ?)", new)
            self._stored[pattern] = number, len(found)
        return number

    def _add(self, key_id: int, key: str) -> None:
        self.names[key_id] = key
        self._ids[key] = key_id
        for pattern, key_ids in self._matching.items():
            if matches(pattern, key):
                key_ids.append(key_id)
