"""TokenGrant of the routes that go no faster than a rate, shared by all processes on the file."""

from __future__ import annotations

import time

from abe_router.backend.rate import TokenGrant, grant
from abe_router.backends.sqlite.database import Database


def take(database: Database, name: str, rate: float, wanted: int) -> TokenGrant:
    """Grant up to `wanted` tokens at `rate` a second."""
    row = database.execute(
        "SELECT used_until FROM rates WHERE prefix = ? AND name = ?", (database.prefix, name)
    ).fetchone()
    tokens, used_until = grant(row[0] if row else 0.0, time.time(), rate, wanted)
    database.execute("INSERT OR REPLACE INTO rates VALUES (?, ?, ?)", (database.prefix, name, used_until))
    return tokens
