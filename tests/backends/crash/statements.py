"""SQLite: its process is killed before and after each statement, within a commit and within a checkpoint.

The process that is killed is a fork of this one, which therefore must have no thread.
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

from . import check
from .check import Point
from .scenario import Scenario, begin_nothing

T = TypeVar("T")

#: How far the clock is put forward before a check, in seconds, so that every lease and delay is over.
LATER = 3600.0
#: The sizes, in bytes, of the header of a write-ahead log, and of the header and the page of each frame
#: (sqlite.org/fileformat2.html, 4.1).
_HEADER, _FRAME, _PAGE = 32, 24, 4096


class Killer:
    """Kills this process at step `at`; each statement has two steps, before it and after it."""

    def __init__(self, path: Path, at: int) -> None:
        self._path, self._at, self._step, self._armed = path, at, 0, False

    def begin(self) -> None:
        """Count steps from now on, and keep a copy of the log as it is now."""
        if _wal(self._path).exists():
            shutil.copyfile(_wal(self._path), _wal_copy(self._path))
        self._armed = True

    def step(self) -> None:
        """Kill this process if this is the step."""
        if self._armed:
            self._step += 1
            if self._step == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    def connect(self, *args: Any, **options: Any) -> sqlite3.Connection:
        """Connect as `sqlite3.connect` does, and count the statements."""
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
        """Execute a statement between two steps."""
        self.step()
        result = execute()
        self.step()
        return result


_connect, _time = sqlite3.connect, time.time
#: Smaller than usual, so that a scenario of a hundred messages has several transactions.
sqlite_backend._CHUNK = 80


def points(folder: Path, scenario: Scenario, every: int) -> Iterator[Point]:
    """Yield each point at which the scenario was cut, and what was wrong afterwards; one point in `every`."""
    prepared, cut = folder / "prepared.db", folder / "cut.db"
    _in_child(prepared, scenario.prepare, None)
    killed, step = True, 1 - every
    while killed:
        step += every
        _copy(prepared, cut)
        killer = Killer(cut, step)
        killed = _in_child(cut, partial(scenario.run, begin=killer.begin), killer)
        yield f"step {step}", [*_after_cut(cut, scenario), *_after_rerun(cut, scenario)]
    for tear in (_torn_commits, _torn_checkpoint):
        for number, point in enumerate(tear(cut)):
            if number % every == 0:
                yield point, _after_cut(cut, scenario)


def _torn_commits(cut: Path) -> Iterator[str]:
    """Truncate the write-ahead log after and within each frame that the scenario has written."""
    if not _wal(cut).exists():
        return
    whole = _wal(cut).read_bytes()
    begun = _wal_copy(cut).stat().st_size if _wal_copy(cut).exists() else 0
    for end in range(max(begun, _HEADER), len(whole), (_FRAME + _PAGE) // 2):
        _wal(cut).write_bytes(whole[:end])
        yield f"byte {end} of the log"
    _wal(cut).write_bytes(whole)


def _torn_checkpoint(cut: Path) -> Iterator[str]:
    """Write the pages of a checkpoint one after the other, and leave the log as it is."""
    old, done = cut.read_bytes(), _copy(cut, cut.with_name("done.db"))
    with closing(_connect(done)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    new = done.read_bytes()
    for end in range(_PAGE, len(new) + _PAGE, _PAGE):
        if new[end - _PAGE : end] != old[end - _PAGE : end]:
            cut.write_bytes(new[:end] + old[end:])
            yield f"byte {end} of the checkpoint"


def _after_cut(path: Path, scenario: Scenario) -> list[str]:
    found = _copy(path, path.with_name("found.db"))
    checking = partial(check.after_cut, scenario=scenario, in_one_step=True)
    return asyncio.run(_later(LATER, found, checking))


def _after_rerun(path: Path, scenario: Scenario) -> list[str]:
    again = _copy(path, path.with_name("again.db"))
    asyncio.run(_later(LATER, again, partial(scenario.run, begin=begin_nothing)))
    return asyncio.run(_later(2 * LATER, again, partial(check.after_rerun, scenario=scenario)))


async def _later(seconds: float, path: Path, work: Callable[[Backend], Awaitable[T]]) -> T:
    """Do the work so many seconds later, on the file as a fresh process finds it."""
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
        except BaseException:  # noqa: BLE001  the child must not return
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the scenario raised an error")
    return os.WIFSIGNALED(status)


def _copy(source: Path, target: Path) -> Path:
    """Copy a file and its log; the shared memory ends with the last process, so it is removed."""
    for name in (lambda path: path, _wal):
        if name(source).exists():
            shutil.copyfile(name(source), name(target))
        else:
            name(target).unlink(missing_ok=True)
    target.with_name(f"{target.name}-shm").unlink(missing_ok=True)
    return target


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _wal_copy(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal-begun")
