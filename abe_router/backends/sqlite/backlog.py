"""The backlog of a subscription: the messages after its cursor, which were never delivered to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from abe_router.backends.sqlite import log
from abe_router.backends.sqlite.database import Database

#: Up to this number of keys, messages of a pattern that lie far apart are found key by key.
_FEW_KEYS = 64
#: How many messages of the log are read for each one wanted, before the wanted ones count as far apart.
_NEAR = 32
#: Larger than the number of any message.
_ENDLESS = 2**63 - 1


class _Queries(NamedTuple):
    """The statements that walk the backlog."""

    #: The messages of one key, by its index.
    of_key: str
    #: One walk over the log that skips the messages of other keys.
    in_order: str
    #: The first few messages of each key by its index, and the first few of those.
    by_key: str


#: The plus sign keeps SQLite from using the index on keys, and then sorting the whole backlog.
_MATCHES = "EXISTS (SELECT 1 FROM matching AS k WHERE k.pattern = ? AND k.key_id = +m.key_id)"


def _queries(columns: str, insert: str = "") -> _Queries:
    select = f"{insert} SELECT {columns} FROM"
    return _Queries(
        f"{select} messages AS m WHERE key_id = ? AND seq > ? ORDER BY seq LIMIT ?",
        f"{select} messages AS m WHERE {_MATCHES} AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        f"{select} matching AS k CROSS JOIN messages AS m WHERE k.pattern = ? AND m.seq IN"  # noqa: S608
        " (SELECT seq FROM messages WHERE key_id = k.key_id AND seq > ? ORDER BY seq LIMIT ?)"
        " ORDER BY m.seq LIMIT ?",
    )


_TAKE = _queries(
    "?, ?, ?, 1, 0, m.seq", "INSERT INTO deliveries (sid, claim, due_at, deliveries, failures, seq)"
)
_LIST = _queries("m.seq")
_FIRST_BY_KEY = """
    SELECT min((SELECT seq FROM messages WHERE key_id = k.key_id AND seq > ? ORDER BY seq LIMIT 1))
    FROM matching AS k WHERE k.pattern = ?"""
_FIRST_IN_ORDER = f"SELECT seq FROM messages AS m WHERE seq > ? AND {_MATCHES} ORDER BY seq LIMIT 1"  # noqa: S608


def take(database: Database, pattern: str, after: int, limit: int, delivery: tuple[int, int, float]) -> int:
    """Insert deliveries of the first messages after number `after` whose key matches; return how many.

    `delivery` is the number of the subscription, the claim, and the end of the lease.
    """

    def insert(sql: str, values: Sequence[Any]) -> int:
        return database.execute(sql, (*delivery, *values)).rowcount

    return _walk(database, pattern, after, limit, _TAKE, insert)


def upcoming(database: Database, pattern: str, after: int, limit: int) -> list[int]:
    """Return the numbers of the first messages after number `after` whose key matches."""
    found: list[int] = []

    def select(sql: str, values: Sequence[Any]) -> int:
        seqs = [seq for (seq,) in database.execute(sql, values).fetchall()]
        found.extend(seqs)
        return len(seqs)

    _walk(database, pattern, after, limit, _LIST, select)
    return found


def _walk(
    database: Database,
    pattern: str,
    after: int,
    limit: int,
    queries: _Queries,
    run: Callable[[str, Sequence[Any]], int],
) -> int:
    """Run the queries that find the first messages; `run` returns how many a query found."""
    key_ids = database.keys.matching(pattern)
    if not key_ids:
        return 0
    if len(key_ids) == 1:
        return run(queries.of_key, (key_ids[0], after, limit))
    stored = database.keys.stored(database.connection, pattern)
    near = after + _NEAR * limit
    found = run(queries.in_order, (stored, after, near, limit))
    left = limit - found
    if found > left or near >= log.end(database):
        return found
    if len(key_ids) <= _FEW_KEYS:
        return found + run(queries.by_key, (stored, near, left, left))
    return found + run(queries.in_order, (stored, near, _ENDLESS, left))


def first(database: Database, pattern: str, after: int) -> int | None:
    """Return the number of the first message after number `after` whose key matches, None without one.

    With many keys this walks over the log from `after` to that message.
    """
    if len(database.keys.matching(pattern)) <= _FEW_KEYS:
        return first_by_key(database, pattern, after)
    stored = database.keys.stored(database.connection, pattern)
    found: tuple[int] | None = database.execute(_FIRST_IN_ORDER, (after, stored)).fetchone()
    return found and found[0]


def first_by_key(database: Database, pattern: str, after: int) -> int | None:
    """Return the same as `first`, with one index seek for each key that matches, however long the log is."""
    stored = database.keys.stored(database.connection, pattern)
    found: tuple[int | None] = database.execute(_FIRST_BY_KEY, (after, stored)).fetchone()
    return found[0]
