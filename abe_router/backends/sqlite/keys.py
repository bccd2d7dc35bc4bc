"""The routing keys of the file under one prefix, kept in memory beside the table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from abe_router.messages.pattern import is_wild, matches


class Keys:
    """Knows each key by its number and back, and which keys a pattern matches.

    It only ever learns what the connection's current transaction shows. After a rollback it must `forget`,
    for a number that was never committed may be given to another key.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.forget()

    def forget(self) -> None:
        """Drop all that was learnt."""
        self._newest = 0
        self.names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._matching: dict[str, list[int]] = {}
        self._listed: dict[str, str] = {}

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Learn the keys that were added since, by whichever process."""
        rows = connection.execute(
            "SELECT kid, prefix, key FROM keys WHERE kid > ? ORDER BY kid", (self._newest,)
        )
        for kid, prefix, key in rows.fetchall():
            self._newest = kid
            if prefix == self._prefix:
                self._learn(kid, key)

    def number(self, connection: sqlite3.Connection, key: str) -> int:
        """Return the number of the key, adding it to the table when it is new."""
        kid = self._numbers.get(key)
        if kid is None:
            added = connection.execute("INSERT INTO keys (prefix, key) VALUES (?, ?)", (self._prefix, key))
            kid = self._newest = added.lastrowid or 0
            self._learn(kid, key)
        return kid

    def matching(self, pattern: str) -> Sequence[int]:
        """Return the numbers of the keys that match, in ascending order."""
        if not is_wild(pattern):
            kid = self._numbers.get(pattern)
            return () if kid is None else (kid,)
        found = self._matching.get(pattern)
        if found is None:
            found = [kid for kid, key in self.names.items() if matches(pattern, key)]
            self._matching[pattern] = found
        return found

    def listed(self, pattern: str) -> str:
        """Return the numbers of the keys that match as a JSON array, the form in which SQL takes a list."""
        text = self._listed.get(pattern)
        if text is None:
            text = self._listed[pattern] = json.dumps(list(self.matching(pattern)))
        return text

    def _learn(self, kid: int, key: str) -> None:
        self.names[kid] = key
        self._numbers[key] = kid
        self._listed.clear()
        for pattern, kids in self._matching.items():
            if matches(pattern, key):
                kids.append(kid)
