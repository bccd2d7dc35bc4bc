"""Dead letters: added, listed, replayed and deleted.

A dead letter is stored without the body of its message, which stays in the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from abe_router.backend import DeadLetter, Reason
from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.registry import SubscriptionSpec, find
from abe_router.messages.message import Message

_replace = msgspec.structs.replace
_decode = msgspec.json.Decoder(DeadLetter).decode
_COLUMNS = "l.id, CAST(l.replays AS INTEGER), CAST(l.former AS INTEGER), CAST(l.content AS TEXT)"
#: The reason of a dead letter whose message is no longer in the file.
_DELETED = Reason("malformed", "MessageDeleted", "another program deleted the message from the file")


def add(database: Database, rows: Sequence[tuple[str, int, int]]) -> None:
    """Add the dead letters of deliveries: the JSON of each, its subscription, and the number of its message.

    The deliveries must still exist.
    """
    if rows:
        database.execute_many(
            """
            INSERT INTO dead_letters (sid, seq, replays, former, content)
            SELECT sid, seq, replays, former, ? FROM deliveries WHERE sid = ? AND seq = ?""",
            rows,
        )


def select(database: Database, spec: SubscriptionSpec, limit: int, after: str) -> list[DeadLetter]:
    """Return dead letters in the order they were added, beginning after the one whose id is `after`."""
    found = find(database, spec)
    if found is None:
        return []
    rows = database.execute(
        f"""
        SELECT {_COLUMNS}, m.seq, {log.COLUMNS}
        FROM dead_letters AS l LEFT JOIN messages AS m ON m.seq = l.seq
        WHERE l.sid = ? AND l.id > ? ORDER BY l.id LIMIT ?""",  # noqa: S608  a constant
        (found[0], number(after), limit),
    ).fetchall()
    dead_letters = []
    for id, replays, former, content, seq, *message in rows:
        stored = _decoded(spec, content, id, replays, former)
        if seq is None:
            whole, reason = stored.message, _DELETED
        else:
            whole, reason = log.decode(database.keys.names, stored.message.attempt, *message), stored.reason
        dead_letters.append(_replace(stored, message=whole, reason=reason))
    return dead_letters


def bare(database: Database, spec: SubscriptionSpec, limit: int, after: str) -> list[DeadLetter]:
    """Return dead letters as `select` does, without the bodies of their messages.

    Whether a message is still in the file is not looked up.
    """
    found = find(database, spec)
    if found is None:
        return []
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM dead_letters AS l WHERE l.sid = ? AND l.id > ? ORDER BY l.id LIMIT ?",  # noqa: S608
        (found[0], number(after), limit),
    ).fetchall()
    return [_decoded(spec, content, id, replays, former) for id, replays, former, content in rows]


def _decoded(spec: SubscriptionSpec, content: str, id: int, replays: int, former: int | None) -> DeadLetter:
    """Return the dead letter without its message; an unreadable one with a reason that says so."""
    stored = _read(spec, content)
    if not replays and former is None:
        return _replace(stored, id=str(id))
    return _replace(stored, id=str(id), replays=replays, former="" if former is None else str(former))


def _read(spec: SubscriptionSpec, content: str) -> DeadLetter:
    try:
        return _decode(content)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        reason = (
            _DELETED
            if content == ""
            else Reason("malformed", type(error).__name__, f"this dead letter is not readable: {error}")
        )
        message = Message("", spec.pattern, b"", {}, 0.0, 1)
        return DeadLetter(f"{spec.pattern}/{spec.group}", message, reason, 0, 0, 0.0, 0.0)


def replay(database: Database, spec: SubscriptionSpec, ids: Sequence[str]) -> int:
    """Turn dead letters into deliveries that are due at once, with fresh counts; return how many."""
    found = find(database, spec)
    if found is None:
        return 0
    numbers = _numbers(ids)
    moved = database.execute(
        """
        INSERT OR IGNORE INTO deliveries (sid, seq, due_at, deliveries, failures, replays, former)
        SELECT sid, seq, 0, 0, 0, CAST(replays AS INTEGER) + 1, id FROM dead_letters
        WHERE sid = ? AND id IN (SELECT value FROM json_each(?))""",
        (found[0], numbers),
    ).rowcount
    _delete(database, found[0], numbers)
    database.changes.add_due(found[0], 0)
    return moved


def purge(database: Database, spec: SubscriptionSpec, ids: Sequence[str]) -> int:
    """Delete dead letters; return how many."""
    found = find(database, spec)
    return 0 if found is None else _delete(database, found[0], _numbers(ids))


def number(id: str) -> int:
    """Return the number of an id that this provider made, 0 for any other text."""
    found = int(id) if id.isascii() and id.isdigit() and len(id) < 20 else 0
    return found if found < 2**63 else 0


def _delete(database: Database, sid: int, numbers: str) -> int:
    return database.execute(
        "DELETE FROM dead_letters WHERE sid = ? AND id IN (SELECT value FROM json_each(?))", (sid, numbers)
    ).rowcount


def _numbers(ids: Sequence[str]) -> str:
    """Return the numbers of ids as a JSON array, which SQL takes as a list."""
    return json.dumps([number(id) for id in ids])
