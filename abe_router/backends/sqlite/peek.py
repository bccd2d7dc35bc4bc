"""Looking at messages without leasing, moving or counting them.

The cursor is the number of a message in the log. Numbers rise in the order of acceptance, so a message that
is accepted later comes behind every cursor. All functions here only read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from abe_router.backend import Peeked, PeekState
from abe_router.backends.sqlite import backlog, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.registry import SubscriptionSpec, find

#: The deliveries of a subscription in the order of the log, in the states in which `status` counts them.
_DELIVERIES = f"""
    SELECT m.seq, CAST(d.deliveries AS INTEGER),
        CASE
            WHEN d.claim IS NULL THEN iif(d.failures > 0, 'delayed', 'ready')
            WHEN d.due_at <= ? THEN 'ready'
            WHEN d.retry_at > ? THEN 'delayed'
            ELSE 'in_flight'
        END,
        CAST(d.failures AS INTEGER) + 1, {log.COLUMNS}
    FROM deliveries AS d CROSS JOIN messages AS m ON m.seq = d.seq
    WHERE d.sid = ? AND d.seq > ? ORDER BY d.seq LIMIT ?"""  # noqa: S608  a constant
_MESSAGES = f"""
    SELECT m.seq, {log.COLUMNS} FROM messages AS m
    WHERE m.seq IN (SELECT value FROM json_each(?)) ORDER BY m.seq"""  # noqa: S608  a constant


def unsettled(database: Database, spec: SubscriptionSpec, limit: int, after: int) -> list[Peeked]:
    """Return messages of a subscription that are not settled, in order, beginning after number `after`."""
    found = find(database, spec)
    if found is None or limit < 1:
        return []
    sid, cursor = found
    now = time.time()
    rows = database.execute(_DELIVERIES, (now, now, sid, after, limit)).fetchall()
    peeked = [
        Peeked(str(seq), log.decode(database.keys.names, *message), state, deliveries)
        for seq, deliveries, state, *message in rows
    ]
    if len(peeked) < limit:
        # All deliveries are of messages up to the cursor: the backlog follows them.
        start = max(after, cursor, database.scanned.get(sid, 0))
        seqs = backlog.upcoming(database, spec.pattern, start, limit - len(peeked))
        peeked += _messages(database, seqs, "ready")
    return peeked


def retained(database: Database, pattern: str, limit: int, after: int) -> list[Peeked]:
    """Return messages that are kept under the keys that match, in order, beginning after number `after`."""
    if limit < 1:
        return []
    return _messages(database, backlog.upcoming(database, pattern, after, limit), "retained")


def last(database: Database) -> int:
    """Return the number of the last message, 0 if there is none."""
    (number,) = database.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()
    return int(number)


def _messages(database: Database, seqs: Sequence[int], state: PeekState) -> list[Peeked]:
    rows = database.execute(_MESSAGES, (json.dumps(seqs),)).fetchall()
    return [Peeked(str(seq), log.decode(database.keys.names, 1, *message), state) for seq, *message in rows]
