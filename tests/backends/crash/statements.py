"""SQLite, killed before and after each statement, within a commit and within a checkpoint.

Children of this process are killed, so it must have no thread when it forks.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from abe_router.backend import Backend
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.backends.sqlite import backend as sqlite_backend

from . import verdict
from .story import Story, nothing_begins
from .verdict import Point

T = TypeVar("T")

#: How far the clock is put forward before one looks, in seconds, so that every lease and delay is over.
LATER = 3600.0
#: The bytes of a write-ahead log before its frames, and in each frame those before the page, and the page
#: (sqlite.org/fileformat2.html, 4.1).
_HEADER, _FRAME, _PAGE = 32, 24, 4096


class Killer:
    """Kills this process at step `at` on the file; each statement has two, before it and after it."""

    def __init__(self, path: Path, at: int) -> None:
        self._path, self._at, self._step, self._armed = path, at, 0, False

    def begin(self) -> None:
        """Count from now on, and keep the log as it is now."""
        if _log(self._path).exists():
            shutil.copyfile(_log(self._path), _begun(self._path))
        self._armed = True

    def step(self) -> None:
        """Be killed, if it is time."""
        if self._armed:
            self._step += 1
            if self._step == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """Connect as `sqlite3.connect` does, and count what is executed."""
        killer = self

        class Connection(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                return killer.around(lambda: super(Connection, self).execute(*args))

            def executemany(self, *args: Any) -> sqlite3.Cursor:
                return killer.around(lambda: super(Connection, self).executemany(*args))

            def close(self) -> None:
                killer.around(super().close)

        return _connect(*args, **options, factory=Connection)

    def around(self, execute: Callable[[], T]) -> T:
        """Execute something between two steps."""
        self.step()
        result = execute()
        self.step()
        return result


_connect, _time = sqlite3.connect, time.time
#: Smaller than usual, so that a story of a hundred messages has several transactions.
sqlite_backend._CHUNK = 80


def points(folder: Path, story: Story) -> Iterator[Point]:
    """Yield each point at which the story was cut, and what was wrong afterwards."""
    before, cut = folder / "before.db", folder / "cut.db"
    _in_child(before, story.prepare, None)
    killed, step = True, 0
    while killed:
        step += 1
        _copy(before, cut)
        killer = Killer(cut, step)
        killed = _in_child(cut, partial(story.tell, begin=killer.begin), killer)
        yield f"step {step}", [*_look(cut, story), *_tell_again(cut, story)]
    for what in (_torn_commits, _torn_checkpoint):
        for point in what(cut):
            yield point, _look(cut, story)


def _torn_commits(cut: Path) -> Iterator[str]:
    """Leave off the write-ahead log after and within each frame that the story has written."""
    if not _log(cut).exists():
        return
    whole = _log(cut).read_bytes()
    begun = _begun(cut).stat().st_size if _begun(cut).exists() else 0
    for end in range(max(begun, _HEADER), len(whole), (_FRAME + _PAGE) // 2):
        _log(cut).write_bytes(whole[:end])
        yield f"byte {end} of the log"
    _log(cut).write_bytes(whole)


def _torn_checkpoint(cut: Path) -> Iterator[str]:
    """Write the pages that a checkpoint writes, one after the other, and leave the log as it is."""
    old, done = cut.read_bytes(), _copy(cut, cut.with_name("done.db"))
    with closing(_connect(done)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    new = done.read_bytes()
    for end in range(_PAGE, len(new) + _PAGE, _PAGE):
        if new[end - _PAGE : end] != old[end - _PAGE : end]:
            cut.write_bytes(new[:end] + old[end:])
            yield f"byte {end} of the checkpoint"


def _look(path: Path, story: Story) -> list[str]:
    look = _copy(path, path.with_name("look.db"))
    return asyncio.run(_after(LATER, look, partial(verdict.of_cut, story=story, in_one_step=True)))


def _tell_again(path: Path, story: Story) -> list[str]:
    again = _copy(path, path.with_name("again.db"))
    asyncio.run(_after(LATER, again, partial(story.tell, begin=nothing_begins)))
    return asyncio.run(_after(2 * LATER, again, partial(verdict.of_retelling, story=story)))


async def _after(seconds: float, path: Path, work: Callable[[Backend], Awaitable[T]]) -> T:
    """Do the work when that much time has passed, on the file as a fresh process finds it."""
    time.time = lambda: _time() + seconds
    try:
        async with SQLiteBackend(path) as backend:
            return await work(backend)
    finally:
        time.time = _time


def _in_child(path: Path, work: Callable[[Backend], Awaitable[object]], killer: Killer | None) -> bool:
    """Do the work in a process that ends without closing anything; return whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            if killer:
                sqlite3.connect = killer.connect  # type: ignore[assignment]
            asyncio.run(work(SQLiteBackend(path)))
            os._exit(0)
        except BaseException:  # noqa: BLE001  whatever it is, this process must not go on
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the story could not be told")
    return os.WIFSIGNALED(status)


def _copy(source: Path, target: Path) -> Path:
    """Copy a file and its log; what is shared among processes goes with the last of them."""
    for name in (lambda path: path, _log):
        if name(source).exists():
            shutil.copyfile(name(source), name(target))
        else:
            name(target).unlink(missing_ok=True)
    target.with_name(f"{target.name}-shm").unlink(missing_ok=True)
    return target


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _begun(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal-begun")
