"""The backlog of a subscription: the messages of the log that it has not been handed yet."""

from __future__ import annotations

from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

#: Up to so many keys, the messages of a pattern are found key by key where they lie far apart.
_FEW_KEYS = 64
#: How many messages of the log are looked at for each one wanted, before they count as far apart.
_NEAR = 32
#: Larger than any number of a message.
_ENDLESS = 2**63 - 1

_OF_KEY = """
    INSERT INTO deliveries (sid, claim, due, deliveries, failures, seq)
    SELECT ?, ?, ?, 1, 0, seq FROM messages
    WHERE kid = ? AND seq > ? ORDER BY seq LIMIT ?"""

# One walk over the log that passes over other keys' messages. The plus sign keeps SQLite from taking the
# index on keys instead, and then sorting the whole backlog for a few of its messages.
_IN_ORDER = """
    INSERT INTO deliveries (sid, claim, due, deliveries, failures, seq)
    SELECT ?, ?, ?, 1, 0, seq FROM messages
    WHERE +kid IN (SELECT value FROM json_each(?)) AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""

# The first few messages of each key by its index, and the first few of those.
_BY_KEY = """
    INSERT INTO deliveries (sid, claim, due, deliveries, failures, seq)
    SELECT ?, ?, ?, 1, 0, m.seq FROM json_each(?) AS k CROSS JOIN messages AS m
    WHERE m.seq IN (SELECT seq FROM messages WHERE kid = k.value AND seq > ? ORDER BY seq LIMIT ?)
    ORDER BY m.seq LIMIT ?"""


def take(database: Database, pattern: str, after: int, limit: int, delivery: tuple[int, int, float]) -> int:
    """Make deliveries of the first messages after number `after` whose key matches; return how many.

    `delivery` says whose they are: the numbers of subscription and claim, and when the lease ends.
    """
    kids = database.keys.matching(pattern)
    if not kids:
        return 0
    if len(kids) == 1:
        return database.execute(_OF_KEY, (*delivery, kids[0], after, limit)).rowcount
    listed = database.keys.listed(pattern)
    near = after + _NEAR * limit
    taken = database.execute(_IN_ORDER, (*delivery, listed, after, near, limit)).rowcount
    left = limit - taken
    if taken > left or near >= log.end(database):
        return taken
    if len(kids) <= _FEW_KEYS:
        return taken + database.execute(_BY_KEY, (*delivery, listed, near, left, left)).rowcount
    return taken + database.execute(_IN_ORDER, (*delivery, listed, near, _ENDLESS, left)).rowcount


def first(database: Database, pattern: str, after: int) -> int | None:
    """Return the number of the first message after number `after` whose key matches, None without one."""
    kids = database.keys.matching(pattern)
    listed = database.keys.listed(pattern)
    if len(kids) <= _FEW_KEYS:
        found = database.execute(
            """
            SELECT min((SELECT seq FROM messages WHERE kid = k.value AND seq > ? ORDER BY seq LIMIT 1))
            FROM json_each(?) AS k""",
            (after, listed),
        )
    else:
        found = database.execute(
            """
            SELECT min(seq) FROM messages
            WHERE seq > ? AND +kid IN (SELECT value FROM json_each(?))""",
            (after, listed),
        )
    seq: int | None
    (seq,) = found.fetchone()
    return seq
