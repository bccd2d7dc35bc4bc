"""What weakens the promise about a SQLite file: looked at, and nothing written."""

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
from abe_router.backends.sqlite import group as groups
from abe_router.backends.sqlite import mount, schema
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.file import File
from abe_router.diagnostic import Severity
from abe_router.errors import BackendError
from abe_router.messages.pattern import matches

_ERROR, _WARNING, _INFO, _OK = Severity.ERROR, Severity.WARNING, Severity.INFO, Severity.OK
#: Free space below which the disk counts as nearly full, and size of a log that has grown, in bytes.
_LITTLE, _LARGE = 256 << 20, 64 << 20
#: How long the file is searched for damage, in seconds, and how many steps of SQLite's lie between two looks.
_SEARCH, _STEPS = 5.0, 100_000
#: The releases that have the WAL-reset bug, and those of them that had its mending ported back.
_RESET_BUG, _RESET_MENDED = ((3, 7, 0), (3, 51, 3)), ((3, 44, 6), (3, 50, 7))
#: Taken back by its makers.
_WITHDRAWN = (3, 52, 0)


class _Unchanged(File):
    """The file, read in a way that leaves no trace of it."""

    @property
    def is_alone(self) -> bool:
        """Whether nobody writes it now, for whoever does has a log or a journal beside it."""
        return not self.log.exists() and not self.path.with_name(f"{self.path.name}-journal").exists()

    def connect(self) -> sqlite3.Connection:
        # Reading makes the files of the log if they are not there, and leaves them, unless SQLite is told
        # that the file does not change.
        address = f"file:{quote(str(self.path))}?mode=ro{'&immutable=1' if self.is_alone else ''}"
        connection = sqlite3.connect(address, uri=True, timeout=1, isolation_level=None)
        self._identity = self._on_disk()
        return connection


class Examination:
    """Looks at the file of a backend; `served` are the subscriptions that somebody is to serve, if known."""

    def __init__(
        self,
        path: Path,
        prefix: str,
        synchronous: str,
        served: Collection[SubscriptionName] | None,
        *,
        mounts: Path = mount.MOUNTS,
    ) -> None:
        self._path, self._prefix, self._served, self._mounts = path, prefix, served, mounts
        self._file = _Unchanged(path, synchronous)
        self._synchronous = synchronous

    def run(self) -> list[HealthResult]:
        """Return what was found; must not run in the event loop, for it may take seconds."""
        found = [*version(sqlite3.sqlite_version_info), *self._durability(), *self._place()]
        if not self._path.is_file():
            return [*self._absence(), *found]
        try:
            return [*found, *self._access(), *self._log(), *self._content()]
        except BackendError as error:
            what = f"the file cannot be used: {error}"
        except (sqlite3.Error, OSError) as error:
            what = f"the file cannot be read: {error}"
        return [*found, _cannot(what, "name another in `backend`, or see who else has it")]

    def _absence(self) -> Iterator[HealthResult]:
        parent = self._path.parent
        if self._path.exists():
            yield _cannot(f"`{self._path}` is not a file", "name a file in `backend`")
        elif not parent.is_dir():
            yield _cannot(f"folder `{parent}` does not exist", f"mkdir -p {parent}")
        elif not os.access(parent, os.W_OK | os.X_OK):
            yield _cannot(f"folder `{parent}` cannot be written", "let the router's user write it")
        else:
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
                "a loss of power may lose the last messages and bring back the last acks",
                "leave `?synchronous=` out of the URL",
            )

    def _place(self) -> Iterator[HealthResult]:
        kind = mount.type_at(self._path.parent, self._mounts)
        if mount.is_network(kind):
            yield HealthResult(
                HealthCheck.FILE_SYSTEM,
                _ERROR,
                f"the file is on a network file system ({kind})",
                "locks and shared memory do not hold there: two processes can damage the file",
                "move it to a disk of this machine, or take redis://",
            )
        elif mount.is_volatile(kind):
            yield HealthResult(
                HealthCheck.FILE_SYSTEM,
                _WARNING,
                f"the file is in memory ({kind})",
                "it is lost when the machine restarts",
                "move it to a disk",
            )
        folder = self._path.parent
        if folder.is_dir() and (free := shutil.disk_usage(folder).free) < _LITTLE:
            yield HealthResult(
                HealthCheck.DISK,
                _WARNING,
                f"{free >> 20:,} MiB are left on the disk",
                "on a full disk nothing can be published, and acks may fail too",
                "free some space",
            )

    def _access(self) -> Iterator[HealthResult]:
        mode, folder = self._path.stat().st_mode, self._path.parent
        if not self._is_ours:
            yield _cannot(
                "this user may not read and write the file", f"run as its owner: ls -l {self._path}"
            )
        if mode & stat.S_IWOTH:
            what, meaning = "write", "anyone on this machine can take, forge and remove messages"
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _ERROR,
                f"every user may {what} the file",
                meaning,
                _mode(self._path),
            )
        elif mode & stat.S_IROTH:
            what, meaning = "read", "anyone on this machine can read the payloads"
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _WARNING,
                f"every user may {what} the file",
                meaning,
                _mode(self._path),
            )
        above = folder.stat().st_mode
        if above & stat.S_IWOTH and not above & stat.S_ISVTX:
            yield HealthResult(
                HealthCheck.PERMISSIONS,
                _ERROR,
                f"every user may write the folder `{folder}`",
                "anyone on this machine can put another file in the place of this one",
                f"chmod o-w {folder}",
            )

    @property
    def _is_ours(self) -> bool:
        return os.access(self._path, os.R_OK | os.W_OK)

    def _log(self) -> Iterator[HealthResult]:
        log = self._file.log
        if log.exists() and (size := log.stat().st_size) > _LARGE:
            yield HealthResult(
                HealthCheck.LOG_GROWN,
                _WARNING,
                f"the write-ahead log has {size >> 20:,} MiB",
                "somebody reads the file for long, so the log cannot be emptied and fills the disk",
                f"find who has it open, and end its transaction: fuser -v {self._path}",
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
            if self._is_ours:
                yield HealthResult(
                    HealthCheck.FILE,
                    _OK,
                    f"`{self._path}` is ours",
                )
            yield from self._journal(database)
            was_alone, damage = self._file.is_alone, self._damage(database)
            if damage.weakens and was_alone and not self._file.is_alone:
                # Somebody began to write, so that what was read may be of two states.
                database.close()
                database.open()
                damage = self._damage(database)
            yield damage
            if damage.severity is not _ERROR:
                with database.reading():
                    yield from orphaned_subscriptions(groups.status(database), self._served)
                    yield from unread_keys(_unread(database))
        finally:
            database.close()

    def _journal(self, database: Database) -> Iterator[HealthResult]:
        if self._file.is_alone:
            # Of a file that does not change SQLite tells no journal; its header does, and 2 is the log.
            with self._path.open("rb") as file:
                is_log = file.read(20)[18:] == b"\2\2"
        else:
            is_log = database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        if not is_log:
            yield HealthResult(
                HealthCheck.JOURNAL,
                _WARNING,
                "the file has another journal than the write-ahead log",
                "readers and writers stop each other, until the next start of the router sets it back",
                "restart the router, and find out which program has changed it",
            )

    def _damage(self, database: Database) -> HealthResult:
        until = time.monotonic() + _SEARCH
        database.connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
        try:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
            return HealthResult(HealthCheck.DAMAGED, _INFO, f"no damage was found in the first {_SEARCH:g} s")
        finally:
            database.connection.set_progress_handler(None, 0)
        if verdict == "ok":
            return HealthResult(HealthCheck.DAMAGED, _OK, "the file is undamaged")
        return HealthResult(
            HealthCheck.DAMAGED,
            _ERROR,
            f"the file is damaged: {verdict.splitlines()[0]}",
            "messages may be lost, and more will be",
            f"stop the router, then: sqlite3 {self._path} .recover | sqlite3 mended.db",
        )


def version(found: tuple[int, ...]) -> Iterator[HealthResult]:
    """Yield what is to be said of a version of SQLite."""
    name = ".".join(map(str, found[:3]))
    since, until = _RESET_BUG
    mended = any(found[:2] == port[:2] and found >= port for port in _RESET_MENDED)
    if since <= found < until and not mended:
        # Nothing to be warned of: see checkpoint.py for why it does not come from us.
        yield HealthResult(
            HealthCheck.SQLITE_VERSION,
            _INFO,
            f"SQLite {name} can damage a file when a checkpoint meets another process's commit",
            "we never let the two meet; another program that writes to this file can make them",
            "let no other program write to the file; SQLite 3.51.3, 3.50.7 and 3.44.6 have it mended",
        )
    elif found[:3] == _WITHDRAWN:
        yield HealthResult(
            HealthCheck.SQLITE_VERSION,
            _WARNING,
            f"SQLite {name} was withdrawn by its makers",
            "it is not to be trusted with data",
            "run a Python that brings SQLite 3.52.1 or 3.51.3",
        )
    else:
        yield HealthResult(
            HealthCheck.SQLITE_VERSION, _OK, f"SQLite {name} has no fault that is known to lose data"
        )


def _unread(database: Database) -> dict[str, int]:
    """Return how many messages each key holds that no subscription matches."""
    rows = database.execute("SELECT pattern FROM subscriptions WHERE prefix = ?", (database.prefix,))
    patterns = [pattern for (pattern,) in rows]
    unread = {
        kid: key
        for kid, key in database.keys.names.items()
        if not any(matches(pattern, key) for pattern in patterns)
    }
    count = "SELECT count(*) FROM messages WHERE kid = ?"
    return {key: database.execute(count, (kid,)).fetchone()[0] for kid, key in unread.items()}


def _mode(path: Path) -> str:
    return f"chmod 600 {path}"


def _cannot(message: str, hint: str) -> HealthResult:
    return HealthResult(HealthCheck.FILE, _ERROR, message, "the router cannot start", hint)
