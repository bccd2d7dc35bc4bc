"""The lock file: which connections use a database file, and with which log and which index of the log.

SQLite finds the write-ahead log and its index by their names. If another program removes or replaces one of
them, the processes that have them open go on sharing those, and a process that opens the file then shares
others. Each loses what the other one accepts. `NAME.lock` beside the file keeps them apart:

- The first byte is locked while a connection is opened or closed, so that one at a time does so.
- The byte that has the inode of the database file as its number is locked, shared, by each connection.
- Its content names the file, the log and the index that those connections share.

Nothing here removes it: a process that had it open would hold a lock that others do not see.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from abe_router.errors import BackendUnavailable

#: How long a process waits for its turn to open or close a connection, in seconds, and between two tries.
_TURN_TIMEOUT, _TRY_INTERVAL = 10.0, 0.002
#: Locks of the open file description where there are any: those of a process are also shared by its threads.
_SET, _GET = (getattr(fcntl, f"F_OFD_{name}", getattr(fcntl, f"F_{name}")) for name in ("SETLK", "GETLK"))
_IS_LINUX = sys.platform == "linux"
#: `struct flock` (fcntl(2)).
_FLOCK = struct.Struct("hhqqi" if _IS_LINUX else "qqihhi")
_TURN = 0
#: The device and the number of a file on it, None when there is no file.
Identity = tuple[int, int] | None


class Identities(NamedTuple):
    """The database file, its write-ahead log and the index of the log, which is shared memory."""

    file: Identity
    log: Identity
    shared_memory: Identity


class LockFile:
    """One opened lock file. Its methods raise BackendUnavailable when the file system refuses."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.lock")
        self._database = database
        self._fd = -1

    def open(self) -> None:
        """Open it; create it with the owner and the mode of the database file, as SQLite does with a log."""
        self.close()
        with self._explained():
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            owned, ours = os.fstat(self._fd), self._database.stat()
            is_ours = (owned.st_uid, owned.st_gid, owned.st_mode) == (ours.st_uid, ours.st_gid, ours.st_mode)
            if not owned.st_size and not is_ours:  # it is new
                with suppress(PermissionError):
                    os.fchown(self._fd, ours.st_uid, ours.st_gid)
                    os.fchmod(self._fd, ours.st_mode & 0o666)

    def open_to_read(self) -> bool:
        """Open it and change nothing; return whether it is there."""
        with suppress(OSError):
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd >= 0

    def close(self) -> None:
        """Unlock and close it."""
        if self._fd >= 0:
            with suppress(
                OSError
            ):  # a child that was forked has the descriptor too, and would keep the locks
                self._lock(fcntl.F_UNLCK, 0, length=0)
            os.close(self._fd)
        self._fd = -1

    @contextmanager
    def turn(self, timeout: float = _TURN_TIMEOUT) -> Iterator[None]:
        """Let no other process open or close a connection meanwhile; wait `timeout` seconds for that."""
        until = time.monotonic() + timeout
        with self._explained():
            while not self._lock(fcntl.F_WRLCK, _TURN):
                if time.monotonic() > until:
                    raise BackendUnavailable(
                        f"`{self._database}` is being opened or closed by another process"
                    )
                time.sleep(_TRY_INTERVAL)
        fd = self._fd
        try:
            yield
        finally:
            if self._fd == fd:
                self._lock(fcntl.F_UNLCK, _TURN)

    def use(self, shared: Identities) -> None:
        """Record what this connection shares with others, and lock it until `close`; called in a `turn`."""
        assert shared.file is not None
        with self._explained():
            numbers = " ".join(f"{each[0]} {each[1]}" for each in shared if each)
            os.pwrite(self._fd, numbers.ljust(160).encode(), 0)
            self._lock(fcntl.F_RDLCK, _byte(shared.file))

    def is_used(self, file: Identity) -> bool:
        """Return whether another connection uses the database file of that identity."""
        if file is None:
            return False
        with self._explained():
            answer = fcntl.fcntl(self._fd, _GET, _flock(fcntl.F_WRLCK, _byte(file)))
        return bool(_FLOCK.unpack(answer)[0 if _IS_LINUX else 3] != fcntl.F_UNLCK)

    def recorded(self) -> Identities | None:
        """Return what the last connection shared with others, None when it is not known."""
        with self._explained():
            words = os.pread(self._fd, 160, 0).split()
        try:
            a, b, c, d, e, f = map(int, words)
        except ValueError:
            return None
        return Identities((a, b), (c, d), (e, f))

    def _lock(self, kind: int, byte: int, length: int = 1) -> bool:
        """Lock or unlock bytes; a `length` of 0 is all that follow. Return False when another has them."""
        try:
            fcntl.fcntl(self._fd, _SET, _flock(kind, byte, length))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BackendUnavailable(f"cannot use `{self._path}`: {error.strerror}") from None


def identity(path: Path) -> Identity:
    """Return the device and the number of the file at the path, None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _byte(file: tuple[int, int]) -> int:
    return 1 + file[1] % (1 << 62)


def _flock(kind: int, byte: int, length: int = 1) -> bytes:
    if _IS_LINUX:
        return _FLOCK.pack(kind, os.SEEK_SET, byte, length, 0)
    return _FLOCK.pack(byte, length, 0, kind, os.SEEK_SET, 0)
