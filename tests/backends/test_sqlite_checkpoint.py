"""The write-ahead log is copied into the file when it is long, and begins anew."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from abe_router.backends.sqlite import SQLiteBackend, checkpoint
from abe_router.backends.sqlite.file import File
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import drain

KEY = "orders.created"
#: Appends messages of various sizes, and fetches and acks them, with a checkpoint after nearly each commit.
PROCESS = """
import asyncio, os
from pathlib import Path
from abe_router.backend import ACKED
from abe_router.backends.sqlite import SQLiteBackend, checkpoint
from abe_router.messages.message import new_message

checkpoint.CHECKPOINT_BYTES, checkpoint._CHECKPOINT_INTERVAL = 60_000, 0.0005

def journal(name):
    fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return lambda messages: os.write(fd, "".join(f"{each.id}\\n" for each in messages).encode())

async def main():
    accepted, fetched = journal("accepted"), journal("fetched")
    async with SQLiteBackend(Path("queue.db")) as backend:
        handle = await backend.subscribe("orders.created", "g", lease=1.0)

        async def consume():
            while True:
                if deliveries := await handle.fetch(50, 1.0):
                    fetched([delivery.message for delivery in deliveries])
                    await handle.settle([(delivery, ACKED) for delivery in deliveries])

        consuming = asyncio.create_task(consume())
        for number in range(1_000_000):
            body = b"1" * (number % 900 + 1)
            messages = [new_message("orders.created", body) for _ in range(number % 7 + 1)]
            await backend.append(messages)
            accepted(messages)

asyncio.run(main())
"""


async def test_write_ahead_log_is_checkpointed(path, backend):
    messages = [new_message(KEY, b"1" * 1000) for _ in range(1000)]
    wal = path.with_name("queue.db-wal")
    for _ in range(12):
        await backend.append(messages)
        await asyncio.sleep(0.06)
    assert wal.stat().st_size < 3 * checkpoint.CHECKPOINT_BYTES


async def test_log_keeps_its_size_and_is_copied_when_it_is_full_again(path, monkeypatch):
    """To write over it takes half the time of a log that grows."""
    copies, sizes, commits = list[bool](), list[int](), 0
    copy = checkpoint.Checkpoint.copy

    def counted(self):
        copies.append(copy(self))
        return copies[-1]

    monkeypatch.setattr(checkpoint.Checkpoint, "copy", counted)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES", 200_000)
    monkeypatch.setattr(checkpoint, "_CHECKPOINT_INTERVAL", 0.0)
    async with SQLiteBackend(path) as backend:
        while len(copies) < 5:
            await backend.append([new_message(KEY, b"1" * 10_000)])
            commits += 1
            sizes.append(path.with_name("queue.db-wal").stat().st_size)
        assert copies == [True] * 5
        assert commits > 30
        assert sizes == sorted(sizes)
        assert max(sizes) < 250_000
        assert len(await drain(await backend.subscribe(KEY, "g"))) == commits


async def test_log_begins_anew_when_the_reader_of_an_old_state_has_ended(path, locked, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES", 200_000)
    monkeypatch.setattr(checkpoint, "_CHECKPOINT_INTERVAL", 0.0)
    async with SQLiteBackend(path) as backend:
        await backend.publish(KEY, 1)
        locked.execute("BEGIN")
        assert locked.execute("SELECT count(*) FROM messages").fetchone() == (1,)
        message, wal = [new_message(KEY, b"1" * 10_000)], path.with_name("queue.db-wal")
        for _ in range(50):
            await backend.append(message)
        grown = wal.stat().st_size
        assert grown > 1_000_000
        locked.execute("COMMIT")
        for _ in range(50):
            await backend.append(message)
        assert wal.stat().st_size < grown + 500_000


async def test_long_read_transaction_blocks_no_writer(path, backend, locked):
    await backend.publish(KEY, 1)
    locked.execute("BEGIN")
    assert locked.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    messages = [new_message(KEY, b"1" * 1000) for _ in range(1000)]
    async with asyncio.timeout(HANG):
        for _ in range(8):
            await backend.append(messages)
            await asyncio.sleep(0.06)
    wal = path.with_name("queue.db-wal")
    grown = wal.stat().st_size
    assert grown > checkpoint.CHECKPOINT_BYTES
    locked.execute("COMMIT")
    for _ in range(6):
        await backend.append(messages)
        await asyncio.sleep(0.06)
    assert wal.stat().st_size < grown


def test_checkpoint_is_put_off_while_another_connection_holds_the_write_lock(path, backend, locked):
    opened = File(path, "full")
    with closing(opened.connect()) as connection, closing(opened.checkpoint(connection)) as copying:
        locked.execute("BEGIN IMMEDIATE")
        locked.execute("INSERT INTO messages (key_id, body) VALUES (1, x'31')")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            copying.copy_locked()
        locked.execute("COMMIT")
        assert copying.copy_locked()
    opened.close_log()


def kill_some(folder: Path, seconds: float) -> int:
    """Keep three processes running and kill one after the other; return the largest size of the log."""
    processes, largest, until = list[subprocess.Popen[bytes]](), 0, time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            while len(processes) < 3:
                processes.append(subprocess.Popen([sys.executable, "-c", PROCESS], cwd=folder))
            time.sleep(random.uniform(0.4, 0.8))
            killed = processes.pop(random.randrange(len(processes)))
            killed.kill()
            killed.wait()
            with suppress(FileNotFoundError):
                largest = max(largest, (folder / "queue.db-wal").stat().st_size)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return largest


@pytest.mark.heavy(10)
@pytest.mark.timeout(120)
async def test_processes_that_are_killed_beside_checkpoints_lose_nothing(tmp_path: Path):
    longer = os.environ.get("ABE_ROUTER_LONGER")
    assert await asyncio.to_thread(kill_some, tmp_path, 60.0 if longer else 5.0) < 5_000_000
    path = tmp_path / "queue.db"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    accepted, fetched = (set((tmp_path / name).read_text().split()) for name in ("accepted", "fetched"))
    await asyncio.sleep(1.0)  # the leases of the processes that were killed
    async with SQLiteBackend(path) as backend:
        rest = await drain(await backend.subscribe(KEY, "g"))
    assert len(accepted) > 1000
    assert accepted <= fetched | {delivery.message.id for delivery in rest}
