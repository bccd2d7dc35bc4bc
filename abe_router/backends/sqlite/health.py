"""Health checks of a SQLite file and of what it lies on. They write nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from abe_router.backend import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
    unread_keys,
)
from abe_router.backends.sqlite import registry, schema
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.file import ONE_NAME, File, FileState
from abe_router.backends.sqlite.keys import decode_text
from abe_router.backends.sqlite.mount import MOUNTS, file_system, is_network, is_volatile
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError
from abe_router.messages.pattern import PatternIndex
from abe_router.text import format_duration

_ERROR, _WARNING, _INFO, _OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
#: The free space, in bytes, below which the disk counts as nearly full.
_LOW_DISK = 256 << 20
#: The size, in bytes, above which the write-ahead log counts as grown.
_LARGE_WAL = 64 << 20
#: How long the file is searched for damage, in seconds.
_SEARCH_SECONDS = 5.0
#: How many instructions SQLite runs between two looks at the clock.
_SEARCH_STEPS = 100_000
#: The first release that has the WAL-reset bug, and the first one that does not have it any more.
_RESET_BUG = ((3, 7, 0), (3, 51, 3))
#: The releases in between that got the fix.
_RESET_FIXED = ((3, 44, 6), (3, 50, 7))
#: A release that was withdrawn.
_WITHDRAWN = (3, 52, 0)


class _ReadOnlyFile(File):
    """The file, opened without creating or changing any file."""

    @property
    def is_idle(self) -> bool:
        """Whether no process writes it now: a writer has a log or a journal beside it."""
        return not self.wal.exists() and not self._beside("-journal").exists()

    def connect(self) -> sqlite3.Connection:
        # Reading would create the files of the log, unless SQLite is told that the file does not change.
        address = f"file:{quote(os.fsencode(self._target))}?mode=ro{'&immutable=1' if self.is_idle else ''}"
        connection = sqlite3.connect(address, uri=True, timeout=1, isolation_level=None)
        connection.text_factory = decode_text
        return connection

    def look(self) -> FileState:
        """Take the file for what it was: nothing is written, so nothing can be lost."""
        return FileState.INTACT

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """Nothing is written, so there is nothing to checkpoint."""


class FileHealth:
    """The health checks of a backend's file; `served` are the subscriptions of the routes file, if known."""

    def __init__(
        self,
        path: Path,
        prefix: str,
        synchronous: str,
        served: Collection[SubscriptionName] | None,
        *,
        mounts: Path = MOUNTS,
    ) -> None:
        self._path, self._prefix, self._served, self._mounts = path, prefix, served, mounts
        self._file = _ReadOnlyFile(path, synchronous, mounts)
        self._synchronous = synchronous

    def check(self) -> list[HealthResult]:
        """Return the results. It may take seconds, so it must not run in the event loop."""
        found = [*check_version(sqlite3.sqlite_version_info), *self._durability(), *self._location()]
        found += self._names()
        try:
            if not self._path.is_file():
                return [*self._absence(), *found]
            self._file.refuse_unsafe_log()
            self._file.refuse_parted()
            return [*found, *self._access(), *self._wal_size(), *self._content()]
        except BackendError as error:
            message = f"the file cannot be used: {error}"
        except (sqlite3.Error, OSError) as error:
            message = f"the file cannot be read: {error}"
        return [*found, _unusable(message, "name another in `backend`, or see which program has it open")]

    def _absence(self) -> Iterator[HealthResult]:
        parent = self._path.parent
        if self._path.exists():
            yield _unusable(f"`{self._path}` is not a file", "name a file in `backend`")
        elif not parent.is_dir():
            yield _unusable(f"folder `{parent}` does not exist", f"mkdir -p {parent}")
        elif not os.access(parent, os.W_OK | os.X_OK):
            yield _unusable(f"folder `{parent}` cannot be written", "give the router's user write permission")
        else:
            self._file.refuse_unsafe_log()
            yield HealthResult(
                HealthCheck.FILE, _INFO, f"`{self._path}` is not there yet", "the first use makes it"
            )

    def _durability(self) -> Iterator[HealthResult]:
        if self._synchronous == "full":
            yield HealthResult(HealthCheck.SYNCHRONOUS, _OK, "every commit is synced to the disk")
        else:
            yield HealthResult(
                HealthCheck.SYNCHRONOUS,
                _WARNING,
                f"commits are not synced: `synchronous={self._synchronous}`",
                "a loss of power may lose the last messages and deliver the last acked ones again",
                "leave `?synchronous=` out of the URL",
            )

    def _location(self) -> Iterator[HealthResult]:
        kind = file_system(self._path.parent, self._mounts)
        if is_network(kind):
            yield HealthResult(
                HealthCheck.FILE_SYSTEM,
                _ERROR,
                f"the file is on a network file system ({kind})",
                "locks and shared memory are not reliable there: two processes can damage the file",
                "move it to a disk of this machine, or use redis://",
            )
        elif is_volatile(kind):
            yield HealthResult(
                HealthCheck.FILE_SYSTEM,
                _WARNING,
                f"the file is in memory ({kind})",
                "it is lost when the machine restarts",
                "move it to a disk",
            )
        folder = self._path.parent
        if folder.is_dir() and (free := shutil.disk_usage(folder).free) < _LOW_DISK:
            yield HealthResult(
                HealthCheck.DISK,
                _WARNING,
                f"{free >> 20:,} MiB are left on the disk",
                "on a full disk nothing can be published, and acks may fail too",
                "free some space",
            )

    def _names(self) -> Iterator[HealthResult]:
        if alias := self._file.alias():
            yield HealthResult(
                HealthCheck.SECOND_NAME,
                _ERROR,
                f"the file may have a second name: {alias}",
                "messages that are accepted under one name are lost for the other",
                ONE_NAME,
            )

    def _access(self) -> Iterator[HealthResult]:
        mode, folder = self._path.stat().st_mode, self._path.parent
        if not self._is_accessible:
            yield _unusable(
                "this user may not read and write the file", f"run as its owner: ls -l {self._path}"
            )
        only_owner = f"chmod 600 {self._path}"
        if mode & stat.S_IWOTH:
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _ERROR,
                "every user may write the file",
                "any user of this machine can take, forge and remove messages",
                only_owner,
            )
        elif mode & stat.S_IROTH:
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _WARNING,
                "every user may read the file",
                "any user of this machine can read the payloads",
                only_owner,
            )
        folder_mode = folder.stat().st_mode
        if folder_mode & stat.S_IWOTH and not folder_mode & stat.S_ISVTX:
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _ERROR,
                f"every user may write the folder `{folder}`",
                "any user of this machine can replace the file",
                f"chmod o-w {folder}",
            )

    @property
    def _is_accessible(self) -> bool:
        return os.access(self._path, os.R_OK | os.W_OK)

    def _wal_size(self) -> Iterator[HealthResult]:
        wal = self._file.wal
        if wal.exists() and (size := wal.stat().st_size) > _LARGE_WAL:
            yield HealthResult(
                HealthCheck.LOG_GROWN,
                _WARNING,
                f"the write-ahead log has {size >> 20:,} MiB",
                "a long read transaction keeps the log from beginning anew, and it fills the disk",
                f"find the program that has it open, and end its transaction: fuser -v {self._path}",
            )

    def _content(self) -> Iterator[HealthResult]:
        database = Database(self._file, self._prefix)
        try:
            database.open()
            if not schema.is_current(database.connection):
                yield HealthResult(
                    HealthCheck.FILE, _INFO, "the file is empty", "the first use makes its tables"
                )
                return
            if self._is_accessible:
                yield HealthResult(HealthCheck.FILE, _OK, f"`{self._path}` is ours")
            yield from self._journal(database)
            was_idle, damage = self._file.is_idle, self._damage(database)
            if damage.weakens and was_idle and not self._file.is_idle:
                # A process began to write meanwhile, so that the pages read may be of two states.
                database.close()
                database.open()
                damage = self._damage(database)
            yield damage
            if damage.severity is not _ERROR:
                with database.reading():
                    yield from orphaned_subscriptions(registry.status(database), self._served)
                    yield from unread_keys(_unread(database), self._served)
        finally:
            database.close()

    def _journal(self, database: Database) -> Iterator[HealthResult]:
        if self._file.is_idle:
            # SQLite reports no journal of an immutable file. The header does: 2 is the write-ahead log.
            with self._path.open("rb") as file:
                is_log = file.read(20)[18:] == b"\2\2"
        else:
            is_log = database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        if not is_log:
            yield HealthResult(
                HealthCheck.JOURNAL,
                _WARNING,
                "the file has another journal than the write-ahead log",
                "readers and writers block each other, until the next start of the router sets it back",
                "restart the router, and find the program that changed it",
            )

    def _damage(self, database: Database) -> HealthResult:
        until = time.monotonic() + _SEARCH_SECONDS
        database.connection.set_progress_handler(lambda: time.monotonic() > until, _SEARCH_STEPS)
        try:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            searched = format_duration(max(0.0, _SEARCH_SECONDS))
            return HealthResult(HealthCheck.DAMAGED, _INFO, f"no damage was found in the first {searched}")
        finally:
            database.connection.set_progress_handler(None, 0)
        if answer == "ok":
            return HealthResult(HealthCheck.DAMAGED, _OK, "the file is undamaged")
        return HealthResult(
            HealthCheck.DAMAGED,
            _ERROR,
            f"the file is damaged: {answer.splitlines()[0]}",
            "messages may be lost, and more of them over time",
            f"stop the router, then: sqlite3 {self._path} .recover | sqlite3 recovered.db",
        )


def check_version(version: tuple[int, ...]) -> Iterator[HealthResult]:
    """Yield the result for a version of SQLite."""
    name = ".".join(map(str, version[:3]))
    since, until = _RESET_BUG
    is_fixed = any(version[:2] == fixed[:2] and version >= fixed for fixed in _RESET_FIXED)
    if since <= version < until and not is_fixed:
        # Not a warning: `file.Checkpoint` avoids the bug.
        yield HealthResult(
            HealthCheck.SQLITE_VERSION,
            _INFO,
            f"SQLite {name} can damage a file when a checkpoint meets the commit of another process",
            "abe-router never lets the two meet; another program that writes to this file can",
            "let no other program write to the file; SQLite 3.51.3, 3.50.7 and 3.44.6 have the fix",
        )
    elif version[:3] == _WITHDRAWN:
        yield HealthResult(
            HealthCheck.SQLITE_VERSION,
            _WARNING,
            f"SQLite {name} was withdrawn by its authors",
            "it may lose data",
            "use a Python that brings SQLite 3.52.1 or 3.51.3",
        )
    else:
        yield HealthResult(
            HealthCheck.SQLITE_VERSION, _OK, f"SQLite {name} has no known fault that loses data"
        )


def _unread(database: Database) -> dict[str, int]:
    """Return how many messages each key holds that no subscription matches."""
    rows = database.execute(
        "SELECT CAST(pattern AS TEXT) FROM subscriptions WHERE prefix = ?", (database.prefix,)
    )
    consumed = PatternIndex((pattern, pattern) for (pattern,) in rows)
    unread = {key_id: key for key_id, key in database.keys.names.items() if not consumed.match(key)}
    count = "SELECT count(*) FROM messages WHERE key_id = ?"
    return {key: database.execute(count, (key_id,)).fetchone()[0] for key_id, key in unread.items()}


def _unusable(message: str, hint: str) -> HealthResult:
    return HealthResult(HealthCheck.FILE, _ERROR, message, "the router cannot start", hint)
