"""The file on disk: making it, connecting to it, noticing that it is gone."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

from abe_router.backends.sqlite import schema
from abe_router.errors import BackendError, BackendUnavailable

#: The oldest SQLite that will do. Its JSON functions must be compiled in, as they are by default.
OLDEST_SQLITE = (3, 35, 0)
#: How often to look whether it is still there, in seconds.
_LOOK = 0.25


class File:
    """A database file; all raise BackendError or sqlite3.Error."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path = path
        self.log = path.with_name(f"{path.name}-wal")
        self._synchronous = synchronous
        self._identity = (0, 0)
        self._look_at = 0.0

    def connect(self) -> sqlite3.Connection:
        """Open a connection, making the file and its tables if need be."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old: {oldest} or newer is needed")
        self._make()
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=256)
        try:
            self._prepare(connection)
        except BackendError as error:
            connection.close()
            raise type(error)(f"cannot use `{self.path}`: {error}") from None
        except BaseException:
            connection.close()
            raise
        self._identity = self._on_disk()
        return connection

    def is_gone(self) -> bool:
        """Say whether the connected file was seen to be no longer at its path."""
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK
        return self._identity != self._on_disk()

    def _make(self) -> None:
        if not self.path.parent.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: folder `{self.path.parent}` does not exist")
        if self.path.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: it is a folder")
        try:
            # Only a new file is opened here: closing a second descriptor of one that is in use would
            # drop the locks this process has on it (sqlite.org/howtocorrupt.html, 2.2).
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise BackendUnavailable(f"cannot create `{self.path}`: {error.strerror}") from None

    def _prepare(self, connection: sqlite3.Connection) -> None:
        current = schema.is_current(connection)
        (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise BackendUnavailable("its file system cannot share it between processes")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # See checkpoint.py, which does it instead.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if not current:
            connection.execute("BEGIN IMMEDIATE")
            if not schema.is_current(connection):
                schema.create(connection)
            connection.execute("COMMIT")

    def _on_disk(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0)
        return (status.st_dev, status.st_ino)
