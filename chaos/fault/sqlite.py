"""What happens to a SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

from chaos.disk import unmountable
from chaos.fault.fault import SQLITE, Fault, repeated
from chaos.stage import LONG, Setup, Stage
from chaos.store import SQLiteStore

#: How long the disk stays full, in seconds, and how long another program keeps the file locked, in leases.
FULL, LOCKED = (0.5, 2.5), (0.1, 0.4)
#: How large the write-ahead log may be once nobody reads any more, in bytes.
LOG = 64 << 20


async def fill(stage: Stage) -> bool:
    """Fill the disk for a while: what is refused is told, and what was accepted is intact."""
    assert stage.disk is not None
    before = stage.unaccepted()
    with stage.afflicting():
        stage.disk.fill()
        await asyncio.sleep(stage.rng.uniform(*FULL))
        refused = stage.unaccepted() - before
        stage.disk.free()
    if refused <= 0:
        stage.complaints.append("the disk was never full")
    with closing(_connect(stage)) as reader:
        (verdict,) = reader.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        stage.complaints.append(f"the file is damaged: {verdict}")
    return True


async def lock(stage: Stage) -> bool:
    """Lock the file, as another program may."""
    with closing(_connect(stage)) as writer:
        try:
            writer.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:  # a worker holds the lock
            return False
        await asyncio.sleep(stage.setup.lease * stage.rng.uniform(*LOCKED))
        writer.execute("ROLLBACK")
    return True


async def read_for_long(stage: Stage) -> None:
    """Keep a reader open all the time, and lock the file now and then."""
    with closing(_connect(stage)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        await repeated(lock, 0.3, 0.6)(stage)
    assert isinstance(stage.store, SQLiteStore)
    log = stage.store.path.with_name(f"{stage.store.path.name}-wal")
    if (size := log.stat().st_size) > LOG:
        stage.complaints.append(f"the write-ahead log has {size:,} bytes")


def _connect(stage: Stage) -> sqlite3.Connection:
    assert isinstance(stage.store, SQLiteStore)
    return sqlite3.connect(stage.store.path, timeout=0.1, isolation_level=None)


FAULTS = (
    Fault(
        "disk",
        "a full disk",
        repeated(fill, 0.2, 0.5),
        (SQLITE,),
        Setup(small_disk=True),
        doubles=True,
        lacks=unmountable,
    ),
    Fault("reader", "a long reader, locks", read_for_long, (SQLITE,), Setup(lease=LONG)),
)
