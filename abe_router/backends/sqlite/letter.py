"""Dead letters: kept, listed, replayed and deleted.

A letter is stored without the body of its message, which stays in the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from abe_router.backend import DeadLetter
from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group, find

_decode = msgspec.json.Decoder(DeadLetter).decode


def keep(database: Database, letters: Sequence[tuple[int, int, str]]) -> None:
    """Add letters: the numbers of subscription and message, and the text."""
    if letters:
        database.execute_many("INSERT INTO letters (sid, seq, letter) VALUES (?, ?, ?)", letters)


def read(database: Database, group: Group, limit: int, after: str) -> list[DeadLetter]:
    """Return letters in the order they were kept, beginning after the one whose id is `after`."""
    found = find(database, group)
    if found is None:
        return []
    rows = database.execute(
        """
        SELECT l.lid, l.letter, m.kid, m.published_at, m.id, m.headers, CAST(m.body AS BLOB)
        FROM letters AS l JOIN messages AS m USING (seq)
        WHERE l.sid = ? AND l.lid > ? ORDER BY l.lid LIMIT ?""",
        (found[0], _number(after), limit),
    ).fetchall()
    letters = []
    for lid, text, *message in rows:
        kept = _decode(text)
        whole = log.decode(database, kept.message.attempt, *message)
        letters.append(msgspec.structs.replace(kept, message=whole, id=str(lid)))
    return letters


def replay(database: Database, group: Group, ids: Sequence[str]) -> int:
    """Make the letters deliveries again, due at once and with fresh counts; return how many."""
    found = find(database, group)
    if found is None:
        return 0
    listed = _listed(ids)
    moved = database.execute(
        """
        INSERT OR IGNORE INTO deliveries (sid, seq, due, deliveries, failures)
        SELECT sid, seq, 0, 0, 0 FROM letters WHERE sid = ? AND lid IN (SELECT value FROM json_each(?))""",
        (found[0], listed),
    ).rowcount
    _delete(database, found[0], listed)
    database.news.falls_due(found[0], 0)
    return moved


def purge(database: Database, group: Group, ids: Sequence[str]) -> int:
    """Delete the letters; return how many."""
    found = find(database, group)
    return 0 if found is None else _delete(database, found[0], _listed(ids))


def _delete(database: Database, sid: int, listed: str) -> int:
    return database.execute(
        "DELETE FROM letters WHERE sid = ? AND lid IN (SELECT value FROM json_each(?))", (sid, listed)
    ).rowcount


def _number(id: str) -> int:
    """Return the number of an id, 0 when it is not one of ours."""
    return int(id) if id.isascii() and id.isdigit() and len(id) < 19 else 0


def _listed(ids: Sequence[str]) -> str:
    return json.dumps([_number(id) for id in ids])
