"""The routing keys of the file under one prefix, cached beside the table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from abe_router.messages.pattern import is_wild, matches

#: As bytes, because another program may write text that is not UTF-8.
_NEW = """
    SELECT key_id, CAST(prefix AS BLOB), CAST(key AS BLOB) FROM keys
    WHERE key_id > ? ORDER BY key_id"""


def decode_text(text: bytes) -> str:
    """Return text of the file, with replacement characters where it is not UTF-8."""
    return text.decode("utf-8", "replace")


class Keys:
    """Maps each key to its number and back, and each pattern to the keys it matches.

    The cache holds only what the current transaction of the connection shows. After a rollback it must be
    cleared, because a number that was never committed may be given to another key.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.clear()

    def clear(self) -> None:
        """Empty the cache."""
        self._newest = 0
        self.names: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._matching: dict[str, list[int]] = {}
        self._json: dict[str, str] = {}

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

    def matching_json(self, pattern: str) -> str:
        """Return the numbers of the keys that match as a JSON array, which SQL takes as a list."""
        text = self._json.get(pattern)
        if text is None:
            text = self._json[pattern] = json.dumps(list(self.matching(pattern)))
        return text

    def _add(self, key_id: int, key: str) -> None:
        self.names[key_id] = key
        self._ids[key] = key_id
        self._json.clear()
        for pattern, key_ids in self._matching.items():
            if matches(pattern, key):
                key_ids.append(key_id)
