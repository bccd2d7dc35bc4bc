"""Copies the write-ahead log into the file when it has grown."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path

#: The size of the write-ahead log, in bytes, from which it is copied. SQLite's own default.
FROM_BYTES = 1000 * 4096
#: How long a checkpoint waits for others' transactions, in milliseconds; meanwhile all writers wait.
_WAIT = 100
#: How often to look at the size, in seconds.
_LOOK = 0.05


class Checkpoint:
    """Keeps the log small.

    SQLite would do so in a COMMIT, but before 3.51.3 a checkpoint that runs beside the commit of another
    process can damage the file (sqlite.org/wal.html, "The WAL-Reset Bug"). The kind used here holds the
    write lock meanwhile, so that there is no such commit.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._from = FROM_BYTES
        self._look_at = 0.0

    def run(self, connection: sqlite3.Connection) -> None:
        """Copy and empty the log, if it is time; whatever prevents it now is left for later."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK
        with suppress(OSError, sqlite3.Error):
            size = self._log.stat().st_size
            if size < self._from:
                return
            # When somebody reads for long, trying at once again would stop all writers for nothing.
            self._from = size + FROM_BYTES
            connection.execute(f"PRAGMA busy_timeout = {_WAIT}")
            try:
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute("PRAGMA busy_timeout = 0")
            if not busy:
                self._from = FROM_BYTES
