"""The file on disk: creating it, connecting to it, noticing what others do to it, and where it lies.

SQLite keeps the newest commits in a write-ahead log beside the file, and names the log after the file. So a
file and its log must stay together under one name:

- A file with two names has two logs, and what one of them accepts is never seen under the other. Such a file
  is refused.
- A log whose file is missing is never paired with a new file: SQLite would delete it, and running processes
  would go on in the deleted log. So no file is created beside a log.

States of an open file, as `File.state` returns them:

- INTACT: the file that was opened is at its path.
- MISSING: there is no file at its path, for less than `GRACE`. It may come back, so nothing is created.
- GONE: another file is at its path, or it is missing for longer.

Transitions: INTACT -> MISSING or GONE; MISSING -> INTACT, when the same file is back, or GONE. After GONE the
owner of the connection calls `set_log_aside` and connects again.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from urllib.parse import quote

from abe_router.backends.sqlite import schema
from abe_router.backends.sqlite.checkpoint import CHECKPOINT_BYTES, Checkpoint
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.text import format_duration

#: The oldest supported SQLite. Its JSON functions must be compiled in, as they are by default.
OLDEST_SQLITE = (3, 35, 0)
#: The shortest time between two checks that the file is still there, in seconds.
_CHECK_INTERVAL = 0.25
#: How long an open file may be missing before a new one is created in its place, in seconds.
GRACE = 5.0
#: The file systems that Linux has mounted.
MOUNTS = Path("/proc/mounts")
#: Types of file systems that several machines share, or whose locks and shared memory are not reliable.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23]?|smbfs|9p|afs|acfs|beegfs|ceph|coda|davfs2?|gfs2?|glusterfs|gpfs|lustre|ncpfs|ocfs2"
    r"|fuse\.(?:ceph\S*|davfs|gcsfuse|glusterfs|goofys|mfs|rclone|s3fs|smb\S*|sshfs|nfs\S*)"
)
_VOLATILE = ("tmpfs", "ramfs")
#: What to do about a file that has two names.
ONE_NAME = "give it one name, and mount or link its folder instead"
#: The device and the number of a file on it, None when there is no file.
_Identity = tuple[int, int] | None


#: Writes a file to the disk. Its times need not be on it.
sync = getattr(os, "fdatasync", os.fsync)


class FileState(Enum):
    """What became of an open file; see the module."""

    INTACT = "intact"
    MISSING = "missing"
    GONE = "gone"


class File:
    """A database file. Its methods raise BackendError or sqlite3.Error.

    `path` is the name it was given. It may be a symbolic link or lie behind one: each connection follows the
    links once, so that all processes name the log after the same file.
    """

    def __init__(self, path: Path, synchronous: str, mounts: Path = MOUNTS) -> None:
        self.path = path
        #: Whether the log of the open file was removed or replaced; set by `state`.
        self.log_is_lost = False
        self.synchronous = synchronous
        self._mounts = mounts
        self._target = Path(os.path.realpath(path))
        self._identity: _Identity = None
        self._log_identity: _Identity = None
        #: The log of the open file, to sync it; -1 without one.
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
        self.refuse_unsafe()
        found = identity(self._target)
        if self._log_identity is not None and found != self._identity:
            self._refuse_log_of_former()
        connection = self._open()
        try:
            self._prepare(connection)
            if found != identity(self._target):
                raise BackendUnavailable("it was replaced while it was opened")
        except BackendError as error:
            connection.close()
            raise type(error)(f"cannot use `{self.path}`: {error}") from None
        except BaseException:
            connection.close()
            raise
        self._identity, self._log_identity = found, identity(self.wal)
        self._state, self.log_is_lost = FileState.INTACT, False
        self.close_log()
        if self.synchronous == "full":
            self._log_fd = os.open(self.wal, os.O_RDWR | os.O_CLOEXEC)
        return connection

    def checkpoint(self, connection: sqlite3.Connection) -> Checkpoint | None:
        """Return what checkpoints the log; `connection` is the one that `connect` returned last."""
        copier = self._open()
        try:
            copier.execute("PRAGMA schema_version").fetchone()  # a read, so that it has the log
            if self._identity != identity(self._target):
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
        if self._log_fd >= 0:
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
        now = time.monotonic()
        if now < self._check_at:
            return self._state
        self._check_at = now + _CHECK_INTERVAL
        found = identity(self.path)
        if found == self._identity:
            self._state = FileState.INTACT
            self.log_is_lost = self._log_identity is not None and identity(self.wal) != self._log_identity
        elif found is not None:
            self._state = FileState.GONE
        else:
            self._note_missing(now)
        return self._state

    def is_replaced(self) -> bool:
        """Return whether another file is at the path of the open one; look at the disk now."""
        return identity(self.path) not in (None, self._identity)

    def set_log_aside(self, *, copied: bool) -> Path | None:
        """Move the log of the file that was open out of the way of the file that is there now.

        The caller holds the write lock of the file that was open, so that only one process does this. A log
        that was `copied` is removed. Do nothing when the log at the path is another one. Return where a log
        that holds commits is now.
        """
        kept = None
        if self._log_identity is not None and identity(self.wal) == self._log_identity:
            if not copied:
                kept = self._beside(f"-wal.{self._log_identity[1]}")
                self.wal.rename(kept)
            else:
                self.wal.unlink()
            # The index of the log has no content of its own.
            self._beside("-shm").unlink(missing_ok=True)
        self._log_identity = None
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
        if any(point == self._target for point, _ in _mounted(self._mounts)):
            return "it is mounted as a single file, so its write-ahead log would not be the one outside"
        return ""

    def _refuse_log_of_former(self) -> None:
        """Raise BackendUnavailable while the log beside the file is that of the file before it."""
        if identity(self.wal) == self._log_identity:
            raise BackendUnavailable(
                f"cannot use `{self.path}`: it was replaced, and the write-ahead log `{self.wal.name}` of "
                "the file before it is still there; stop all processes, then move the log away"
            )

    def _beside(self, suffix: str) -> Path:
        return self._target.with_name(f"{self._target.name}{suffix}")

    def _note_missing(self, now: float) -> None:
        if self._state is FileState.INTACT:
            self._state, self._missing_since = FileState.MISSING, now
        elif now >= self._missing_since + GRACE:
            self._state = FileState.GONE

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
        if self._identity is not None:
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
        connection.execute(f"PRAGMA journal_size_limit = {2 * CHECKPOINT_BYTES}")
        if not current:
            connection.execute("BEGIN IMMEDIATE")
            if not schema.is_current(connection):
                schema.create(connection)
            connection.execute("COMMIT")
        connection.execute("PRAGMA schema_version").fetchone()  # a read, so that the log is there


def identity(path: Path) -> _Identity:
    """Return the device and the number of the file at the path, None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _mounted(mounts: Path) -> Iterator[tuple[Path, str]]:
    """Yield each mount point with the type of its file system, nothing when they are unknown."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split(" ")
        if len(words) >= 3:
            yield Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), words[1])), words[2]


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that `path` lies on, empty when it is unknown."""
    whole, found, longest = path.resolve(), "", -1
    for point, kind in _mounted(mounts):
        # Of several mounts on one path the last one is visible.
        if whole.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = kind, len(point.parts)
    return found


def is_network(file_system: str) -> bool:
    """Return whether locks on a file system of this type are unreliable."""
    return _NETWORK.fullmatch(file_system) is not None


def is_volatile(file_system: str) -> bool:
    """Return whether a file system of this type is lost when the machine restarts."""
    return file_system in _VOLATILE
