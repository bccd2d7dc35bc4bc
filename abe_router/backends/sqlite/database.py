"""The connection of a backend: its transactions, its checkpoints, and what its errors mean.

Everything here runs in the one thread that owns the connection; see `thread`.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from abe_router.backends.sqlite.changes import BacklogCount, Changes
from abe_router.backends.sqlite.checkpoint import Checkpoint
from abe_router.backends.sqlite.file import File, FileState
from abe_router.backends.sqlite.keys import Keys, decode_text
from abe_router.backoff import Backoff
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.text import counted

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: How long a transaction is retried while another process holds the lock of the file, in seconds.
LOCK_TIMEOUT = 10.0
#: The same while closing.
_CLOSING_LOCK_TIMEOUT = 1.0
#: The delays between two tries, in seconds.
_FIRST_DELAY, _LONGEST_DELAY = 0.0003, 0.003


class Database:
    """One connection to the file: opened on first use, and again after an error that broke it."""

    #: Connections to files that were removed or replaced while they were open; see `close`.
    _abandoned: ClassVar[list[tuple[sqlite3.Connection, Checkpoint | None]]] = []

    def __init__(self, file: File, prefix: str) -> None:
        self.path = file.path
        self.prefix = prefix
        self.keys = Keys(prefix)
        #: What the last transaction made available.
        self.changes = Changes()
        #: By subscription, the `seq` up to which no message after the cursor matches. Only a read transaction
        #: sets it, so that it always holds for the committed log.
        self.scanned: dict[int, int] = {}
        #: By subscription, what `status` counted last.
        self.counted: dict[int, BacklogCount] = {}
        self._file = file
        #: The write-ahead log.
        self.log = file.wal
        self._checkpoint: Checkpoint | None = None
        #: Rises when the content of the file was replaced, so that what is known of it no longer holds.
        self.generation = 0
        #: The highest number of a message that this connection has committed or seen.
        self.last_appended = 0
        #: The same of the open transaction.
        self.appended = 0
        self._connection: sqlite3.Connection | None = None
        self._schema_version = 0
        #: Its `data_version` at the last transaction, None when `keys` lack what is committed.
        self.version: int | None = None
        self._is_reading = False
        self._lock_deadline = math.inf

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

    def retry_while_locked(self, transaction: Callable[[], T]) -> T:
        """Return what a whole transaction returns; try it again while another process holds the lock.

        The delays are short and random, so that several writers get their turns. SQLite's own busy handler
        sleeps longer and longer, so that some writers would wait for a second.
        """
        started = time.monotonic()
        try:
            return transaction()
        except UnicodeDecodeError:  # Python cannot decode SQLite's own message, which quotes the file
            raise sqlite3.DatabaseError("the file is damaged") from None
        except sqlite3.OperationalError as error:
            if self._is_text_undecodable(error):
                return self.retry_while_locked(transaction)
            if not is_busy(error):
                raise
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY, factor=1.5)
        while True:
            time.sleep(backoff.next())
            try:
                return transaction()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > min(started + LOCK_TIMEOUT, self._lock_deadline):
                    raise

    def _is_text_undecodable(self, error: sqlite3.OperationalError) -> bool:
        """Return whether text that another program wrote is not UTF-8; then read it from now on."""
        connection = self._connection
        # An error of SQLite has a code. Python's module raises one without a code for this reason alone.
        if connection is None or connection.text_factory is not str or hasattr(error, "sqlite_errorcode"):
            return False
        connection.text_factory = decode_text
        return True

    def limit_lock_wait(self) -> None:
        """Wait for locks no longer than a second from now; may be called from any thread."""
        self._lock_deadline = time.monotonic() + _CLOSING_LOCK_TIMEOUT

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Begin a transaction that sees one state of the file and changes nothing, or use the open one."""
        if self._is_reading:
            yield
            return
        with self._transaction("BEGIN"):
            self._is_reading = True
            try:
                yield
            finally:
                self._is_reading = False

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[None]:
        """Begin a transaction that holds the write lock from its first statement on.

        A loss of power may undo one that is not `durable`. What it makes available wakes other processes
        before it is on the disk. Raise BackendUnavailable when it is committed and cannot be written there,
        or when what it was written to is not the file any more.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            yield
        if durable:
            self._require_file()
        if self.changes.is_available:
            with suppress(OSError):
                os.utime(self.log)
        if durable:
            self._file.sync_log()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        is_unchanged = self._begin(begin)
        connection = self.connection
        self.changes.clear()
        self.appended = 0
        try:
            if not is_unchanged:
                self.keys.refresh(connection)
            yield
            connection.execute("COMMIT")
            self.last_appended = max(self.last_appended, self.appended)
        except BaseException:
            self._clear_keys()
            self.changes.clear()
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def open(self) -> None:
        """Open the file if it is not open; create it if it does not exist.

        Raise BackendError or sqlite3.Error when that fails.
        """
        if self._connection is not None:
            state = self._file.state()
            if state is FileState.INTACT:
                return
            if state is FileState.MISSING:
                raise BackendUnavailable(self._file.missing())
            if state is FileState.GONE:
                self._leave(self._connection)
            else:
                self._part(state)
        self._clear_keys()
        self.scanned.clear()
        self.counted.clear()
        connection = self._file.connect()
        self._connection = connection
        try:
            self.keys.prepare(connection)
            self._checkpoint = self._file.checkpoint(connection)
        except BaseException:
            self.close()
            raise
        self.log = self._file.wal
        self._schema_version = self._read_schema_version()
        self._note_loss()

    def close(self) -> None:
        """Close the connection, if it is open; committed data stays.

        A connection that would delete or damage what is not its own when it is closed stays open until the
        process ends; see `File.leaving`.
        """
        connection, self._connection = self._connection, None
        checkpoint, self._checkpoint = self._checkpoint, None
        if connection is None:
            return
        with suppress(BackendUnavailable), self._file.leaving() as may_close:
            if may_close:
                if checkpoint is not None:
                    checkpoint.close()
                connection.close()
                return
        with suppress(sqlite3.Error):
            if checkpoint is not None and self._file.state() is FileState.GONE:
                checkpoint.copy_locked()
        self._abandoned.append((connection, checkpoint))

    def checkpoint(self) -> None:
        """Checkpoint the write-ahead log if it has grown."""
        if self._checkpoint is not None:
            self._checkpoint.run()

    def look(self) -> None:
        """Look at the file while nothing is asked of it, so that others need not wait for this process."""
        if self._connection is not None and self._file.look() is FileState.PARTED:
            with suppress(BackendError, sqlite3.Error):
                self._part(FileState.PARTED)

    def _require_file(self) -> None:
        """Raise BackendUnavailable when a commit may be lost, as the file or its log has no name any more."""
        state = self._file.state_after_commit()
        if state is FileState.INTACT:
            return
        with suppress(sqlite3.Error):
            # The processes that have a removed log open go on sharing it, and it is lost with the last one.
            if state is FileState.PARTED and self._checkpoint is not None and self._checkpoint.copy_locked():
                return
            if state is FileState.CUT and self._is_log_empty():
                return
        raise BackendUnavailable(f"`{self.path}`, its log or its index was removed, replaced or cut")

    def _is_log_empty(self) -> bool:
        """Return whether the log was emptied rightly, by a checkpoint of another program."""
        if self._checkpoint is None or not self._checkpoint.is_log_empty():
            return False
        self._file.log_size = 0
        return self._file.look() is FileState.INTACT

    def _part(self, state: FileState) -> None:
        """Close the connection to a log that is lost, after copying what it holds.

        Raise BackendUnavailable when the log was cut short.
        """
        if state is FileState.CUT:
            if self._is_log_empty():
                return
            raise BackendUnavailable(
                f"`{self.path}` or its write-ahead log was cut short by another program, and may lack "
                "messages; stop all processes that use the file, then start them again"
            )
        _log.error(
            "the write-ahead log of `%s`, or the index of the log, was removed or replaced while it was in "
            "use: the log is copied into the file, which is opened again",
            self.path,
        )
        if self._checkpoint is not None:
            with suppress(sqlite3.Error):
                self._checkpoint.copy_locked()
        self.close()

    def as_backend_error(self, error: sqlite3.Error) -> BackendError:
        """Return what an error means; close the connection when it is no longer usable."""
        if is_busy(error):
            return BackendUnavailable(f"`{self.path}` is locked by another process")
        code = _code(error)
        if code == sqlite3.SQLITE_FULL:
            return BackendUnavailable(f"cannot write `{self.path}`: the disk is full")
        self.close()
        if code == sqlite3.SQLITE_NOTADB:
            return BackendError(f"`{self.path}` is not a SQLite database")
        if isinstance(error, sqlite3.OperationalError):
            return BackendUnavailable(f"cannot use `{self.path}`: {error}{_permissions(self.path)}")
        return BackendError(f"cannot use `{self.path}`: {error}")

    def data_version(self) -> int:
        """Return a number that changes when another connection commits, but not when this one does."""
        (version,) = self.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _begin(self, begin: str) -> bool:
        """Begin a transaction; open the file anew when its content was replaced since the last one.

        Return whether no other connection has committed since.

        A restore in place (`.restore`, SQLite's backup API) changes the version of the schema. What is cached
        of the file, such as the numbers of keys, does not hold for the new content.
        """
        self.open()
        self.connection.execute(begin)
        before, self.version = self.version, self.data_version()
        if self.version == before:
            return True
        if self._read_schema_version() == self._schema_version:
            return False
        self.connection.execute("ROLLBACK")
        self.close()
        generation = self.generation
        self.open()
        if self.generation == generation:
            self.generation += 1
            _log.warning("`%s` was restored, vacuumed or altered by another program: read anew", self.path)
        self.connection.execute(begin)
        return False

    def _note_loss(self) -> None:
        """Compare the file that was just opened with what was committed to it before."""
        if not self.last_appended:
            return
        last, self.last_appended = self.last_appended, self._last_seq()
        if (lost := last - self.last_appended) > 0:
            self.generation += 1
            _log.error(
                "`%s` was restored to an earlier state: it lacks at least %s accepted since then; what was "
                "handled since then may be handled again",
                self.path,
                counted(lost, "message"),
            )

    def _last_seq(self) -> int:
        """Return the highest number that a message was ever given, also if the message is deleted."""
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return 0 if row is None else int(row[0])

    def _clear_keys(self) -> None:
        self.keys.clear()
        self.version = None

    def _read_schema_version(self) -> int:
        (version,) = self.execute("PRAGMA schema_version").fetchone()
        return int(version)

    def _leave(self, connection: sqlite3.Connection) -> None:
        """Stop using a file that is no longer at its path, and keep its connection open; see `close`.

        What the log holds is copied into the old file first, which may still have another name. Raise
        sqlite3.Error when another process holds the lock of the old file.
        """
        connection.execute("BEGIN IMMEDIATE")
        try:
            copied = False
            with suppress(sqlite3.Error):
                copied = self._checkpoint is not None and self._checkpoint.copy()
            (held,) = connection.execute("SELECT count(*) FROM messages").fetchone()
            kept = self._file.set_log_aside(copied=copied)
        finally:
            connection.execute("ROLLBACK")
        _log.error(
            "`%s` was removed or replaced while it was open: opened again; the old file held %s%s",
            self.path,
            counted(held, "message"),
            f", and its last commits are in `{kept}`" if kept else "",
        )
        self._abandoned.append((connection, self._checkpoint))
        self._connection = self._checkpoint = None
        self.generation += 1
        self.last_appended = 0


def is_busy(error: Exception) -> bool:
    """Return whether the error means that another process holds a lock."""
    return isinstance(error, sqlite3.OperationalError) and _code(error) == sqlite3.SQLITE_BUSY


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code: extended codes such as SQLITE_BUSY_SNAPSHOT add higher bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _permissions(path: Path) -> str:
    """Return the owner and mode of a file that this process may not use, or an empty string."""
    with suppress(OSError):
        status = path.stat()
        if not os.access(path, os.R_OK | os.W_OK):
            mode = stat.filemode(status.st_mode)
            return f": its owner is user {status.st_uid} and its mode {mode}, but this is user {os.geteuid()}"
    return ""
