"""Checkpoints: copying the write-ahead log into the file, so that the log can begin anew."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path

#: The length of the write-ahead log, in bytes, from which it is checkpointed. SQLite's own default.
CHECKPOINT_BYTES = 1000 * 4096
#: The sizes of the header of the log, and of that of each page in it.
_LOG_HEADER, _FRAME_HEADER = 32, 24
#: How long a checkpoint waits for other transactions, in milliseconds. All writers wait meanwhile.
_CHECKPOINT_TIMEOUT = 100
#: The shortest time between two checks of the size, in seconds.
_CHECKPOINT_INTERVAL = 0.05


class Checkpoint:
    """Copies the write-ahead log into the file when the log has grown.

    The next commit begins at the start of the log, which keeps its size. To write over it and sync that takes
    half the time of a log that grows, because the file system has nothing else to write.

    SQLite would do all this in a COMMIT. Before 3.51.3 a checkpoint beside a commit that begins the log anew
    can damage the file (sqlite.org/wal.html, "The WAL-Reset Bug"). So `connection` holds the write lock while
    `copier` checkpoints, and there is no such commit. The kinds of checkpoint that take the lock themselves
    do without it when they do not get it.
    """

    def __init__(self, wal: Path, connection: sqlite3.Connection, copier: sqlite3.Connection) -> None:
        self._wal, self._connection, self._copier = wal, connection, copier
        self._threshold = CHECKPOINT_BYTES
        self._round = b""
        self._check_at = 0.0

    def run(self) -> None:
        """Copy the log if it is large enough; after an error, a later call tries again."""
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + _CHECKPOINT_INTERVAL
        with suppress(OSError, sqlite3.Error):
            size = self._wal.stat().st_size
            if size >= CHECKPOINT_BYTES and self._is_due():
                # A reader of an old state keeps the end of the log from being copied, so the next try waits
                # until the log has grown. Once all is copied, a reader may still keep the next commit from
                # beginning the log anew, and then it is copied again.
                self._threshold = size + CHECKPOINT_BYTES
                if self.copy_locked():
                    self._threshold = CHECKPOINT_BYTES

    def _is_due(self) -> bool:
        """Return whether the log reaches the threshold in this round; a new round has the first threshold.

        Each time the log begins anew, the salt in its header changes. Each frame repeats the salt of its
        round (sqlite.org/fileformat2.html, 4.1).
        """
        with self._wal.open("rb", buffering=0) as log:
            head = log.read(_LOG_HEADER)
            if self._round != head[16:24]:
                self._round, self._threshold = head[16:24], CHECKPOINT_BYTES
            frame = _FRAME_HEADER + int.from_bytes(head[8:12], "big")
            log.seek(_LOG_HEADER + self._threshold // frame * frame)
            return log.read(_FRAME_HEADER)[8:16] == self._round

    def copy_locked(self) -> bool:
        """Take the write lock and `copy`. Raise sqlite3.Error when another process holds the lock."""
        self._connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT}")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            return self.copy()
        finally:
            self._connection.execute("ROLLBACK")

    def copy(self) -> bool:
        """Copy the whole log; return False when a reader is in the way. The caller holds the write lock.

        Raise sqlite3.DatabaseError when the log was cut short and has grown again: SQLite would copy the gap.
        """
        if not has_header(self._wal):
            raise sqlite3.DatabaseError("its write-ahead log was cut short by another program")
        busy, frames, copied = self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and frames == copied

    def is_log_empty(self) -> bool:
        """Return whether a log of no bytes holds no commits, as after a checkpoint by another program."""
        with suppress(OSError, sqlite3.Error):
            # A log that lost its commits cannot be read, so this copies nothing.
            return self._wal.stat().st_size == 0 and self.copy()
        return False

    def close(self) -> None:
        """Close what only checkpoints need."""
        self._copier.close()


def has_header(log: Path) -> bool:
    """Return whether a log begins with its header, or has no content, or is not there."""
    try:
        with log.open("rb", buffering=0) as file:
            return file.read(1) != b"\0"
    except FileNotFoundError:
        return True
