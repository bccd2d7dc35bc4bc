"""The connection of a backend: its transactions, and what its errors mean.

Everything here runs in the one thread that owns the connection.
"""

from __future__ import annotations

import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TypeVar

from abe_router.backends.sqlite.checkpoint import Checkpoint
from abe_router.backends.sqlite.file import File
from abe_router.backends.sqlite.keys import Keys
from abe_router.backends.sqlite.news import News
from abe_router.errors import BackendError, BackendUnavailable

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: How long to try again while another process holds the lock of the file, in seconds.
PATIENCE = 10.0
#: The same while closing.
_LAST_PATIENCE = 1.0
#: The waits between two tries, in seconds: the first at most, and the longest at most.
_FIRST_WAIT, _LONGEST_WAIT = 0.0005, 0.005


class Database:
    """One connection to the file, opened when it is needed and anew after an error that broke it."""

    #: Connections to files that were removed or replaced under us; see `_leave`.
    _left: ClassVar[list[sqlite3.Connection]] = []

    def __init__(self, file: File, prefix: str) -> None:
        self.path = file.path
        self.prefix = prefix
        self.keys = Keys(prefix)
        #: What the last transaction has made available.
        self.news = News()
        #: By subscription, the message up to which none is for it; only what a snapshot has shown.
        self.passed: dict[int, int] = {}
        self._file = file
        self._checkpoint = Checkpoint(file.log)
        self._connection: sqlite3.Connection | None = None
        self._no_later = math.inf

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

        The waits are short and random, so that several writers get their turns: with SQLite's own busy
        handler, which sleeps ever longer, some would wait for a second.
        """
        begun = time.monotonic()
        delay = _FIRST_WAIT
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > min(begun + PATIENCE, self._no_later):
                    raise
                time.sleep(random.uniform(0, delay))  # noqa: S311
                delay = min(delay * 1.5, _LONGEST_WAIT)

    def hurry(self) -> None:
        """Wait no longer for locks than a second from now; may be called from any thread."""
        self._no_later = time.monotonic() + _LAST_PATIENCE

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
            if not self._file.is_gone():
                return
            _log.warning("`%s` was removed or replaced while it was open: opened anew", self.path)
            self._leave()
        self.keys.forget()
        self.passed.clear()
        self._connection = self._file.connect()

    def close(self) -> None:
        """Close the connection, if it is open; what was committed is kept."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def tidy(self) -> None:
        """Do what need not be done before anyone has an answer."""
        if self._connection is not None:
            self._checkpoint.run(self._connection)

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
        return BackendError(f"cannot use `{self.path}`: {error}")

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
