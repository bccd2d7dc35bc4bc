"""What workers announce of themselves, each for a while."""

from __future__ import annotations

import time

from abe_router.backends.sqlite.database import Database


def put(database: Database, worker: str, state: bytes, ttl: float) -> None:
    """Keep the state of a worker for `ttl` seconds, or withdraw it when it is empty."""
    now = time.time()
    database.execute(
        "DELETE FROM announcements WHERE prefix = ? AND (worker = ? OR expires_at <= ?)",
        (database.prefix, worker, now),
    )
    if state:
        database.execute(
            "INSERT INTO announcements (prefix, worker, state, expires_at) VALUES (?, ?, ?, ?)",
            (database.prefix, worker, state, now + ttl),
        )


def read(database: Database) -> dict[str, bytes]:
    """Return what has not expired, by worker."""
    return dict(
        database.execute(
            "SELECT worker, state FROM announcements WHERE prefix = ? AND expires_at > ? ORDER BY worker",
            (database.prefix, time.time()),
        ).fetchall()
    )
