"""The file of a backend: how it is opened, its transactions, and what its errors mean.

Everything here runs in the one thread that owns the connection.
"""

from __future__ import annotations

import logging
import math
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from abe_router.backends.sqlite import schema
from abe_router.backends.sqlite.keys import Keys
from abe_router.backends.sqlite.news import News
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: The oldest SQLite that will do. Its JSON functions must be compiled in, as they are by default.
OLDEST_SQLITE = (3, 35, 0)
#: How long to try again while another process holds the file's lock, in seconds.
PATIENCE = 10.0
#: The size of the write-ahead log, in bytes, from which it is copied into the file. SQLite's own default.
CHECKPOINT_BYTES = 1000 * 4096
#: How long a checkpoint waits for writers and readers, in milliseconds; meanwhile other writers wait too.
_CHECKPOINT_WAIT = 100


class Database:
    """One connection to the file, opened when it is needed and anew after an error that broke it."""

    #: Connections to files that were removed or replaced under us; see `_leave`.
    _left: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, path: Path, prefix: str, synchronous: str) -> None:
        self.path = path
        self.prefix = prefix
        self._wal = path.with_name(f"{path.name}-wal")
        self.keys = Keys(prefix)
        #: What the running transaction has made available.
        self.news = News()
        #: By subscription, the message up to which none is for it; only what a snapshot has shown.
        self.passed: dict[int, int] = {}
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._checkpoint_from = CHECKPOINT_BYTES
        self._no_later = math.inf

    def hurry(self) -> None:
        """Wait no longer for locks than a second from now; may be called from any thread."""
        self._no_later = time.monotonic() + 1

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection."""
        assert self._connection is not None
        return self._connection

    def execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run one statement."""
        return self.connection.execute(sql, values)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""
        self.connection.executemany(sql, rows)

    def patiently(self, work: Callable[[], T]) -> T:
        """Return what `work`, a whole transaction, returns; while the file is locked, try it again.

        The waits are short and random: SQLite's own busy handler sleeps ever longer, and with several
        writers some would wait for a second.
        """
        begun = time.monotonic()
        delay = 0.0005
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > min(begun + PATIENCE, self._no_later):
                    raise
                time.sleep(random.uniform(0, delay))  # noqa: S311
                delay = min(delay * 1.5, 0.02)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Begin a transaction that sees one state of the file and changes nothing."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Begin a transaction that is alone in writing the file, from its first statement on."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.open()
        connection = self.connection
        self.news.clear()
        connection.execute(begin)
        try:
            self.keys.refresh(connection)
            yield
            connection.execute("COMMIT")
        except BaseException:
            self.keys.forget()
            self.news.clear()
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def open(self) -> None:
        """Open the file if it is not open, making it if need be; raise BackendError or sqlite3.Error."""
        if self._connection is not None:
            if self._identity == self._on_disk():
                return
            _log.warning("`%s` was removed or replaced while it was open: opened anew", self.path)
            self._leave()
        self.keys.forget()
        self.passed.clear()
        self._make()
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, cached_statements=256)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, self._on_disk()

    def close(self) -> None:
        """Close the connection, if it is open; what was committed is kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def fault(self, error: sqlite3.Error) -> BackendError:
        """Say what an error means; close the connection when it is of no more use."""
        if is_busy(error):
            return BackendUnavailable(f"`{self.path}` is locked by another process")
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return BackendUnavailable(f"cannot write `{self.path}`: the disk is full")
        self.close()
        if code == sqlite3.SQLITE_NOTADB:
            return BackendError(f"`{self.path}` is not a SQLite database")
        if isinstance(error, sqlite3.OperationalError):
            return BackendUnavailable(f"cannot use `{self.path}`: {error}")
        return BackendError(f"`{self.path}`: {error}")

    def checkpoint(self) -> None:
        """Copy the write-ahead log into the file when it has grown, and empty it.

        SQLite would do so in a COMMIT, but before 3.51.3 a checkpoint that runs beside another process's
        commit can damage the file (sqlite.org/wal.html, "The WAL-Reset Bug"). This kind holds the write
        lock meanwhile, so that there is no such commit.
        """
        connection = self._connection
        if connection is None:
            return
        with suppress(OSError):
            size = self._wal.stat().st_size
            if size < self._checkpoint_from:
                return
            busy = 1
            connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT}")
            with suppress(sqlite3.Error):  # a full disk, say: the next write will tell
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            connection.execute("PRAGMA busy_timeout = 0")
            # Someone reads for long: trying again at once would stop all writers for nothing.
            self._checkpoint_from = size + CHECKPOINT_BYTES if busy else CHECKPOINT_BYTES

    def _make(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old: {oldest} or newer is needed")
        if not self.path.parent.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: folder `{self.path.parent}` does not exist")
        if self.path.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: it is a folder")
        try:
            # Only a new file is opened here: closing a second descriptor of one that is in use would
            # drop the locks this process has on it (sqlite.org/howtocorrupt.html, 2.2).
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise BackendUnavailable(f"cannot create `{self.path}`: {error.strerror}") from None

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            current = schema.is_current(connection)
            (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if journal != "wal":
                raise BackendUnavailable("its file system cannot share it between processes")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            if not current:
                connection.execute("BEGIN IMMEDIATE")
                if not schema.is_current(connection):
                    schema.create(connection)
                connection.execute("COMMIT")
        except BackendError as error:
            raise type(error)(f"cannot use `{self.path}`: {error}") from None

    def _on_disk(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except OSError:
            return (0, 0)
        return (status.st_dev, status.st_ino)

    def _leave(self) -> None:
        """Let go of a file that is no longer at its path.

        Closing it may delete the write-ahead log of whatever file is there now, for SQLite does so by
        name; so the connection stays open as long as the process lives.
        """
        if self._connection is not None:
            self._left.append(self._connection)
            self._connection = None


def is_busy(error: Exception) -> bool:
    """Say whether the error means that another process holds a lock."""
    return isinstance(error, sqlite3.OperationalError) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code: the extended ones, such as SQLITE_BUSY_SNAPSHOT, add higher bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
