"""What the callers of `trim` want kept, noted for one another."""

from __future__ import annotations

import time
from collections.abc import Mapping

from abe_router.backend import RETAIN_TTL
from abe_router.backends.sqlite.database import Database

#: After how long it is noted anew, in seconds.
RENEWED = 3600.0


def read(database: Database) -> dict[tuple[str, float], float]:
    """Return what counts now: pattern and seconds, and until when, since the epoch."""
    rows = database.execute(
        "SELECT pattern, seconds, until FROM retention WHERE prefix = ? AND until > ?",
        (database.prefix, time.time()),
    )
    return {(pattern, seconds): until for pattern, seconds, until in rows.fetchall()}


def note(database: Database, retain: Mapping[str, float]) -> None:
    """Have `retain` count anew."""
    now = time.time()
    database.execute("DELETE FROM retention WHERE prefix = ? AND until <= ?", (database.prefix, now))
    database.execute_many(
        "INSERT OR REPLACE INTO retention (prefix, pattern, seconds, until) VALUES (?, ?, ?, ?)",
        [(database.prefix, pattern, seconds, now + RETAIN_TTL) for pattern, seconds in retain.items()],
    )


def is_fresh(noted: Mapping[tuple[str, float], float], retain: Mapping[str, float]) -> bool:
    """Say whether all of `retain` was noted not long ago, so that there is nothing to write."""
    old = time.time() + RETAIN_TTL - RENEWED
    return all(noted.get(item, 0.0) > old for item in retain.items())


def longest(noted: Mapping[tuple[str, float], float], retain: Mapping[str, float]) -> dict[str, float]:
    """Return by pattern the longest that anyone wants."""
    found = dict(retain)
    for pattern, seconds in noted:
        found[pattern] = max(seconds, found.get(pattern, 0.0))
    return found
