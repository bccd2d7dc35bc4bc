"""Permits of the routes that go no faster than a rate, shared by all processes on the file."""

from __future__ import annotations

import time

from abe_router.backends.sqlite.database import Database
from abe_router.rate import Permits, permit


def take(database: Database, name: str, rate: float, wanted: int) -> Permits:
    """Grant up to `wanted` permits at `rate` a second."""
    row = database.execute(
        "SELECT used_until FROM rates WHERE prefix = ? AND name = ?", (database.prefix, name)
    ).fetchone()
    permits, used_until = permit(row[0] if row else 0.0, time.time(), rate, wanted)
    database.execute("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", (database.prefix, name, used_until))
    return permits
