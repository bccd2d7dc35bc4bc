"""Faults of a SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from chaos.disk import mount_error
from chaos.fault.fault import SQLITE, Fault, repeated
from chaos.storage import SQLiteStorage
from chaos.testbed import LONG, Setup, Testbed

#: Time for which the disk is full, in seconds, and for which another program locks the file, in leases.
FULL, LOCKED = (0.5, 2.5), (0.1, 0.4)
#: Longest time for which the write-ahead log of a full disk still takes commits, in seconds.
ROOM = 10.0
#: Largest write-ahead log after the last reader has closed, in bytes, and time until it is cut to that, in
#: seconds.
LOG, CUT = 16 << 20, 10.0


async def fill(testbed: Testbed) -> bool:
    """Fill the disk for a while: publishing is refused, and accepted messages stay intact."""
    assert testbed.disk is not None
    before = testbed.unaccepted()
    with testbed.injecting():
        testbed.disk.fill()
        await asyncio.sleep(testbed.rng.uniform(*FULL))
        # The log has room for some commits, because it is written over.
        is_refused = await _comes_true(lambda: testbed.unaccepted() > before, ROOM)
        testbed.disk.free()
    if not is_refused:
        testbed.violations.append("the full disk refused nothing")
    with closing(_connect(testbed)) as reader:
        (verdict,) = reader.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        testbed.violations.append(f"the file is damaged: {verdict}")
    return True


async def lock(testbed: Testbed) -> bool:
    """Lock the file, as another program may."""
    with closing(_connect(testbed)) as writer:
        try:
            writer.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:  # a worker holds the lock
            return False
        await asyncio.sleep(testbed.setup.lease * testbed.rng.uniform(*LOCKED))
        writer.execute("ROLLBACK")
    return True


async def read_for_long(testbed: Testbed) -> None:
    """Keep a reader open all the time, and lock the file now and then."""
    with closing(_connect(testbed)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        await repeated(lock, 0.3, 0.6)(testbed)
    assert isinstance(testbed.storage, SQLiteStorage)
    log = testbed.storage.path.with_name(f"{testbed.storage.path.name}-wal")
    if not await _comes_true(lambda: log.stat().st_size <= LOG, CUT):
        testbed.violations.append(f"the write-ahead log has {log.stat().st_size:,} bytes")


async def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return holds


def _connect(testbed: Testbed) -> sqlite3.Connection:
    assert isinstance(testbed.storage, SQLiteStorage)
    return sqlite3.connect(testbed.storage.path, timeout=0.1, isolation_level=None)


FAULTS = (
    Fault(
        "disk",
        "a full disk",
        repeated(fill, 0.2, 0.5),
        (SQLITE,),
        Setup(small_disk=True),
        duplicates=True,
        missing=mount_error,
    ),
    Fault("reader", "a long reader, locks", read_for_long, (SQLITE,), Setup(lease=LONG)),
)
