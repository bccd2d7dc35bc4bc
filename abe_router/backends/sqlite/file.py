"""The file on disk: creating it, connecting to it, noticing what others do to it, and where it lies.

SQLite keeps the newest commits in a write-ahead log beside the file, and names the log after the file. So a
file and its log must stay together under one name:

- A file with two names has two logs, and what one of them accepts is never seen under the other. Such a file
  is refused.
- A log whose file is missing is never paired with a new file: SQLite would delete it, and running processes
  would go on in the deleted log. So no file is created beside a log.
- Processes that have a removed log, or a removed index of the log, share it with no process that opens the
  file later. So a file in use is opened only with the log and the index that are in use; see `lock_file`.

States of an open file, as `File.state` returns them:

- INTACT: the file that was opened is at its path.
- MISSING: there is no file at its path, for less than `GRACE`. It may come back, so nothing is created.
- GONE: another file is at its path, or it is missing for longer.
- PARTED: its log, or the index of the log, was removed or replaced. All connections that share the former
  ones copy the log into the file and close. The last one to close removes what is left, and then the file is
  opened anew.
- CUT: the file was emptied, or the log was cut short. The processes that have it open would copy what is not
  there over the file, so they use it no longer.

Transitions: INTACT -> any other; MISSING -> INTACT, when the same file is back, or any other. After GONE the
owner of the connection calls `set_log_aside` and connects again, after PARTED it closes and connects again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from abe_router.backends.sqlite import schema
from abe_router.backends.sqlite.checkpoint import CHECKPOINT_BYTES, Checkpoint
from abe_router.backends.sqlite.lock_file import Identities, LockFile, identity
from abe_router.backends.sqlite.mount import MOUNTS, mounted
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.text import format_duration

#: The oldest supported SQLite. Its JSON functions must be compiled in, as they are by default.
OLDEST_SQLITE = (3, 35, 0)
#: The shortest time between two checks that the file is still there, in seconds.
_CHECK_INTERVAL = 0.25
#: How long an open file may be missing before a new one is created in its place, in seconds.
GRACE = 5.0
#: What to do about a file that has two names.
ONE_NAME = "give it one name, and mount or link its folder instead"
#: How long an opening waits until other processes let go of a log that was removed, and a closing until no
#: other process opens or closes, in seconds; and the time between two looks.
_LET_GO, _CLOSING_TIMEOUT, _LOOK_INTERVAL = 3.0, 1.0, 0.02
#: The size, in bytes, to which SQLite itself cuts the log.
_LOG_LIMIT = 2 * CHECKPOINT_BYTES
_UNKNOWN = Identities(None, None, None)

#: Writes a file to the disk. Its times need not be on it.
sync = getattr(os, "fdatasync", os.fsync)


class FileState(Enum):
    """What became of an open file; see the module."""

    INTACT = "intact"
    MISSING = "missing"
    GONE = "gone"
    PARTED = "parted"
    CUT = "cut"


class File:
    """A database file. Its methods raise BackendError or sqlite3.Error.

    `path` is the name it was given. It may be a symbolic link or lie behind one: each connection follows the
    links once, so that all processes name the log after the same file.
    """

    def __init__(self, path: Path, synchronous: str, mounts: Path = MOUNTS) -> None:
        self.path = path
        self.synchronous = synchronous
        self._mounts = mounts
        self._target = Path(os.path.realpath(path))
        self._names = ("", "", "")
        #: What the open connection shares with those of other processes.
        self._shared = _UNKNOWN
        self._lock_file: LockFile | None = None
        self.log_size = 0
        #: The log of the open file; -1 without one.
        self._log_fd = -1
        self._state = FileState.INTACT
        self._missing_since = 0.0
        self._check_at = 0.0

    @property
    def wal(self) -> Path:
        """The write-ahead log."""
        return self._beside("-wal")

    def connect(self) -> sqlite3.Connection:
        """Open a connection; create the file and its tables if they do not exist."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old: {oldest} or newer is needed")
        self._target = Path(os.path.realpath(self.path))  # as SQLite does
        self._create()
        if self._lock_file is not None:
            self._lock_file.close()
        lock_file = LockFile(self._target)
        lock_file.open()
        try:
            connection = self._connect(lock_file)
        except BaseException:
            lock_file.close()
            raise
        self._lock_file = lock_file
        self._state, self.log_size = FileState.INTACT, 0
        self._names = (str(self.path), str(self.wal), str(self._beside("-shm")))
        self.close_log()
        self._log_fd = os.open(self.wal, os.O_RDWR | os.O_CLOEXEC)
        return connection

    def _connect(self, lock_file: LockFile) -> sqlite3.Connection:
        """Open a connection once no other one uses a log or an index that is not there any more."""
        until = time.monotonic() + _LET_GO
        while True:
            with lock_file.turn():
                found = self._find()
                if not (obstacle := self._obstacle(lock_file, found)):
                    self.refuse_unsafe()
                    connection, self._shared = self._open_shared(found)
                    lock_file.use(self._shared)
                    return connection
            if time.monotonic() > until:
                raise BackendUnavailable(f"cannot use `{self.path}`: {obstacle}")
            time.sleep(_LOOK_INTERVAL)

    def _open_shared(self, found: Identities) -> tuple[sqlite3.Connection, Identities]:
        connection = self._open()
        try:
            self._prepare(connection)
            shared = self._find()
            if shared.file != found.file:
                raise BackendUnavailable("it was replaced while it was opened")
            if None in shared:  # SQLite shares the index within a process, also one that was removed
                raise BackendUnavailable("its log was removed, and this process had it open: restart it")
        except BackendError as error:
            connection.close()
            raise type(error)(f"cannot use `{self.path}`: {error}") from None
        except BaseException:
            connection.close()
            raise
        return connection, shared

    def _find(self) -> Identities:
        return Identities(*map(identity, (self._target, self.wal, self._beside("-shm"))))

    def checkpoint(self, connection: sqlite3.Connection) -> Checkpoint | None:
        """Return what checkpoints the log; `connection` is the one that `connect` returned last."""
        copier = self._open()
        try:
            copier.execute("PRAGMA schema_version").fetchone()  # a read, so that it has the log
            if self._shared != self._find():
                raise BackendUnavailable(f"cannot use `{self.path}`: it was replaced while it was opened")
        except BaseException:
            copier.close()
            raise
        return Checkpoint(self.wal, connection, copier)

    def sync_log(self) -> None:
        """Let the commits so far survive a loss of power, unless `synchronous` is `normal`.

        SQLite would do so in a COMMIT and hold the write lock meanwhile. Now other processes write and read
        in that time. Raise BackendUnavailable when the disk fails: a loss of power may undo the commits.
        """
        if self.synchronous == "full" and self._log_fd >= 0:
            try:
                sync(self._log_fd)
            except OSError as error:
                raise BackendUnavailable(f"cannot sync `{self.path}`: {error.strerror}") from None

    def close_log(self) -> None:
        """Close the log, which has no locks that this could drop; they are on the index of the log."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1

    def state(self) -> FileState:
        """Return what became of the open file; look at the disk at most every `_CHECK_INTERVAL`."""
        return self._state if time.monotonic() < self._check_at else self.look()

    def look(self) -> FileState:
        """Return what became of the open file; look at the disk now."""
        self._check_at = time.monotonic() + _CHECK_INTERVAL
        shared = self._shared
        try:
            file = os.stat(self._names[0])  # noqa: PTH116  half the time of `Path.stat`
            if (file.st_dev, file.st_ino) != shared.file:
                self._state = FileState.GONE
                return self._state
        except OSError:
            self._note_missing(time.monotonic())
            return self._state
        try:
            log, index = map(os.stat, self._names[1:])
        except OSError:
            self._state = FileState.PARTED
            return self._state
        if (log.st_dev, log.st_ino) != shared.log or (index.st_dev, index.st_ino) != shared.shared_memory:
            self._state = FileState.PARTED
        elif not file.st_size or log.st_size < min(self.log_size, _LOG_LIMIT) or self._lacks_header():
            self._state = FileState.CUT
        else:
            self._state, self.log_size = FileState.INTACT, log.st_size
        return self._state

    def state_after_commit(self) -> FileState:
        """Return what became of the file that was written to. With `normal`, looks cost more than commits."""
        return self.look() if self.synchronous == "full" else self.state()

    def _lacks_header(self) -> bool:  # a commit has made a log that was cut to nothing grow again
        return self._log_fd >= 0 and os.pread(self._log_fd, 1, 0) == b"\0"

    @contextmanager
    def leaving(self) -> Iterator[bool]:
        """Let no other process open or close the file; yield whether the connection may be closed.

        SQLite deletes a log and an index by their names, and copies the log when the last connection closes.
        A log that another program put there is moved aside first.
        """
        lock_file, self._lock_file = self._lock_file, None
        try:
            if lock_file is None:
                yield True
                return
            with lock_file.turn(_CLOSING_TIMEOUT):
                state = self.look()
                if state is FileState.PARTED:
                    self._set_strangers_aside()
                try:
                    yield state not in (FileState.CUT, FileState.GONE)
                finally:
                    lock_file.close()
        finally:
            self.close_log()

    def _set_strangers_aside(self) -> None:
        """Move a log away that another program put in the place of the one in use; remove its index."""
        found = self._find()
        if found.log not in (None, self._shared.log):
            self.wal.rename(self._beside(f"-wal.{found.log[1]}"))
        if found.shared_memory not in (None, self._shared.shared_memory):
            self._beside("-shm").unlink(missing_ok=True)

    def set_log_aside(self, *, copied: bool) -> Path | None:
        """Move the log of the file that was open out of the way of the file that is there now.

        The caller holds the write lock of the file that was open, so that only one process does this. A log
        that was `copied` is removed. Do nothing when the log at the path is another one. Return where a log
        that holds commits is now.
        """
        kept = None
        found, former = self._find(), self._shared
        if former.log is not None and found.log == former.log:
            if not copied:
                kept = self._beside(f"-wal.{former.log[1]}")
                self.wal.rename(kept)
            else:
                self.wal.unlink()
        if former.shared_memory is not None and found.shared_memory == former.shared_memory:
            self._beside("-shm").unlink()  # it has no content of its own
        return kept

    def refuse_unsafe(self) -> None:
        """Raise BackendError when opening the file could lose or hide messages. Change nothing."""
        if alias := self.alias():
            raise BackendError(f"cannot use `{self.path}`: {alias}; {ONE_NAME}")
        self.refuse_unsafe_log()

    def refuse_unsafe_log(self) -> None:
        """Raise BackendUnavailable when a log lies there without its file, or the reverse. Change nothing."""
        # In this order: the log appears after the first page of the file, and its index after the log.
        if self.wal.exists() and not (self._target.exists() and self._target.stat().st_size):
            raise BackendUnavailable(
                f"cannot use `{self.path}`: it is missing or empty, but its write-ahead log "
                f"`{self.wal.name}` is there; put the file back, or to begin anew, stop all processes and "
                "remove the log"
            )
        index = self._beside("-shm")
        if index.exists() and not self.wal.exists() and index.exists():
            raise BackendUnavailable(
                f"cannot use `{self.path}`: its write-ahead log was removed while it was in use; stop all "
                f"processes that use the file, then remove `{index.name}` if it is still there"
            )

    def refuse_parted(self) -> None:
        """Raise BackendUnavailable when others use a log that is not there any more. Change nothing."""
        lock_file = LockFile(self._target)
        if lock_file.open_to_read():
            try:
                if obstacle := self._obstacle(lock_file, self._find()):
                    raise BackendUnavailable(f"cannot use `{self.path}`: {obstacle}")
            finally:
                lock_file.close()

    def _obstacle(self, lock_file: LockFile, found: Identities) -> str:
        """Return why a file is not to be opened with the log and the index found, empty when it may be."""
        recorded = lock_file.recorded()
        if lock_file.is_used(found.file):
            if recorded == found:
                return ""
            return (
                "its write-ahead log, or the index of the log, was removed or replaced while it was in use; "
                "the processes that use it let go of it within seconds; if they do not, stop all processes "
                "that use the file"
            )
        if recorded is None or recorded.file == found.file:
            return ""
        is_former = found.log is not None and recorded.log == found.log
        if is_former or (recorded.shared_memory == found.shared_memory and lock_file.is_used(recorded.file)):
            return (
                f"it was replaced, and the write-ahead log `{self.wal.name}` of the file before it, or the "
                "index of that log, is still there; stop all processes, then move the log away"
            )
        return ""

    def missing(self) -> str:
        """Return what to say while an open file is missing."""
        wait = format_duration(GRACE)
        return f"`{self.path}` was removed or moved while it was open; waiting {wait} for it to come back"

    def alias(self) -> str:
        """Return what says that the file may have another name, empty when nothing does."""
        try:
            links = self._target.stat().st_nlink
        except OSError:
            return ""
        if links > 1:
            return f"it has {links} hard links, and each name would have a write-ahead log of its own"
        if any(point == self._target for point, _ in mounted(self._mounts)):
            return "it is mounted as a single file, so its write-ahead log would not be the one outside"
        return ""

    def _beside(self, suffix: str) -> Path:
        return self._target.with_name(f"{self._target.name}{suffix}")

    def _note_missing(self, now: float) -> None:
        if self._state is FileState.MISSING:
            if now >= self._missing_since + GRACE:
                self._state = FileState.GONE
        elif self._state is not FileState.GONE:
            self._state, self._missing_since = FileState.MISSING, now

    def _open(self) -> sqlite3.Connection:
        # `mode=rw`: if the file vanishes just now, SQLite must not create another one.
        address = f"file:{quote(os.fsencode(self._target))}?mode=rw"
        return sqlite3.connect(address, uri=True, timeout=0, isolation_level=None, cached_statements=256)

    def _create(self) -> None:
        target = self._target
        if not target.parent.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: folder `{target.parent}` does not exist")
        if target.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: it is a folder")
        if target.exists():
            return
        if self._shared.file is not None:
            self._note_missing(time.monotonic())
            if self._state is FileState.MISSING:
                raise BackendUnavailable(self.missing())
        self.refuse_unsafe()
        try:
            # O_EXCL: only a new file is opened here. Closing a second descriptor of a file in use would drop
            # the locks that this process has on it (sqlite.org/howtocorrupt.html, 2.2).
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise BackendUnavailable(f"cannot create `{self.path}`: {error.strerror}") from None

    def _prepare(self, connection: sqlite3.Connection) -> None:
        current = schema.is_current(connection)
        (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if journal != "wal":
            raise BackendUnavailable("its file system cannot share it between processes")
        # `sync_log` syncs what must be durable, `Checkpoint` does checkpoints.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_LIMIT}")
        if not current:
            connection.execute("BEGIN IMMEDIATE")
            if not schema.is_current(connection):
                schema.create(connection)
            connection.execute("COMMIT")
        connection.execute("PRAGMA schema_version").fetchone()  # a read, so that the log is there
