"""Named values that the processes on the file share: the key-value store, and the state of rate limiters.

A revision is the number of the row, which SQLite never gives twice. A put always inserts a new row, so the
revision rises with each change, over all buckets. Entries expire by this machine's clock.
"""

from __future__ import annotations

import time

from abe_router.backend import Entry
from abe_router.backend.rate import TokenGrant, grant
from abe_router.backends.sqlite.database import Database

#: The most expired entries that one put deletes. It adds one at most, so the table does not grow by expiry.
PAGE = 4

_IS_LIVE = "(expires_at IS NULL OR expires_at > ?)"
_NAMED = f"prefix = ? AND bucket = ? AND name = ? AND {_IS_LIVE}"
_GET = f"SELECT CAST(value AS BLOB), revision FROM entries WHERE {_NAMED}"  # noqa: S608  of constants
_DELETE = f"DELETE FROM entries WHERE {_NAMED} AND revision = coalesce(?, revision)"  # noqa: S608
_SELECT = (
    "SELECT CAST(name AS TEXT), CAST(value AS BLOB), revision FROM entries"  # noqa: S608  of constants
    f" WHERE prefix = ? AND bucket = ? AND {_IS_LIVE} ORDER BY name"
)


def put(
    database: Database, bucket: str, name: str, value: bytes, expected: int | None, ttl: float | None
) -> int:
    """Store a value for `ttl` seconds, None for good; return its revision.

    With `expected` it is stored only if the entry has this revision, 0 for no entry; otherwise return 0.
    """
    now = time.time()
    if expected is not None:
        found = get(database, bucket, name)
        if (found.revision if found else 0) != expected:
            return 0
    delete_expired(database, PAGE)
    stored = database.execute(
        "INSERT OR REPLACE INTO entries (prefix, bucket, name, value, expires_at) VALUES (?, ?, ?, ?, ?)",
        (database.prefix, bucket, name, value, None if ttl is None else now + ttl),
    )
    return stored.lastrowid or 0


def get(database: Database, bucket: str, name: str) -> Entry | None:
    """Return an entry, None when there is none or it has expired."""
    row = database.execute(_GET, (database.prefix, bucket, name, time.time())).fetchone()
    return None if row is None else Entry(*row)


def select(database: Database, bucket: str) -> dict[str, Entry]:
    """Return the entries of a bucket that have not expired, by name."""
    rows = database.execute(_SELECT, (database.prefix, bucket, time.time())).fetchall()
    return {name: Entry(value, revision) for name, value, revision in rows}


def delete(database: Database, bucket: str, name: str, expected: int | None) -> bool:
    """Delete an entry, with `expected` only if it has this revision; return whether it was deleted."""
    deleted = database.execute(_DELETE, (database.prefix, bucket, name, time.time(), expected))
    return deleted.rowcount > 0


def is_any_expired(database: Database) -> bool:
    """Return whether there are expired entries."""
    expired = database.execute("SELECT 1 FROM entries WHERE expires_at <= ? LIMIT 1", (time.time(),))
    return expired.fetchone() is not None


def delete_expired(database: Database, limit: int) -> None:
    """Delete at most `limit` expired entries."""
    database.execute(
        """
        DELETE FROM entries WHERE revision IN
            (SELECT revision FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)""",
        (time.time(), limit),
    )


def take_tokens(database: Database, name: str, rate: float, wanted: int) -> TokenGrant:
    """Grant up to `wanted` tokens at `rate` a second."""
    row = database.execute(
        "SELECT CAST(used_until AS REAL) FROM rates WHERE used_until < 9e99 AND prefix = ? AND name = ?",
        (database.prefix, name),
    ).fetchone()
    tokens, used_until = grant(row[0] if row else 0.0, time.time(), rate, wanted)
    database.execute("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", (database.prefix, name, used_until))
    return tokens
