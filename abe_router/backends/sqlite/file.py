"""The file on disk: creating it, connecting to it, noticing its removal, and the file system it lies on."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from pathlib import Path

from abe_router.backends.sqlite import schema
from abe_router.errors import BackendError, BackendUnavailable

#: The oldest supported SQLite. Its JSON functions must be compiled in, as they are by default.
OLDEST_SQLITE = (3, 35, 0)
#: The shortest time between two checks that the file is still there, in seconds.
_CHECK_INTERVAL = 0.25
#: The file systems that Linux has mounted.
MOUNTS = Path("/proc/mounts")
#: Types of file systems that several machines share, or whose locks and shared memory are not reliable.
_NETWORK = re.compile(
    r"nfs4?|cifs|smb[23]?|smbfs|9p|afs|acfs|beegfs|ceph|coda|davfs2?|gfs2?|glusterfs|gpfs|lustre|ncpfs|ocfs2"
    r"|fuse\.(?:ceph\S*|davfs|gcsfuse|glusterfs|goofys|mfs|rclone|s3fs|smb\S*|sshfs|nfs\S*)"
)
_VOLATILE = ("tmpfs", "ramfs")


class File:
    """A database file. Its methods raise BackendError or sqlite3.Error."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path = path
        self.wal = path.with_name(f"{path.name}-wal")
        self._synchronous = synchronous
        self._identity = (0, 0)
        self._check_at = 0.0

    def connect(self) -> sqlite3.Connection:
        """Open a connection; create the file and its tables if they do not exist."""
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise BackendError(f"SQLite {sqlite3.sqlite_version} is too old: {oldest} or newer is needed")
        self._create()
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
        """Return whether the connected file was found to be no longer at its path."""
        now = time.monotonic()
        if now < self._check_at:
            return False
        self._check_at = now + _CHECK_INTERVAL
        return self._identity != self._on_disk()

    def _create(self) -> None:
        if not self.path.parent.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: folder `{self.path.parent}` does not exist")
        if self.path.is_dir():
            raise BackendUnavailable(f"cannot open `{self.path}`: it is a folder")
        try:
            # O_EXCL: only a new file is opened here. Closing a second descriptor of a file in use would drop
            # the locks that this process has on it (sqlite.org/howtocorrupt.html, 2.2).
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
        # `database.Checkpoint` does it instead.
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


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that `path` lies on, empty when it is unknown."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    whole, found, longest = path.resolve(), "", -1
    for line in lines:
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), words[1]))
        # Of several mounts on one path the last one is visible.
        if whole.is_relative_to(point) and len(point.parts) >= longest:
            found, longest = words[2], len(point.parts)
    return found


def is_network(file_system: str) -> bool:
    """Return whether locks on a file system of this type are unreliable."""
    return _NETWORK.fullmatch(file_system) is not None


def is_volatile(file_system: str) -> bool:
    """Return whether a file system of this type is lost when the machine restarts."""
    return file_system in _VOLATILE
