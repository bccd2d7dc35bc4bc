"""Looking at a SQLite file: status and peek write nothing, use the indexes, and count correctly."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends.sqlite import SQLiteBackend, backlog, key_value, peek
from abe_router.messages.message import new_message

KEY = "orders.created"


def content(path):
    """Return the bytes of the file and of its write-ahead log."""
    return path.read_bytes(), path.with_name("queue.db-wal").read_bytes()


async def plan(backend, sql, values):
    """Return the steps of SQLite's plan for a statement, as one text."""
    rows = await backend._read(lambda d: d.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    return "\n".join(step for *_, step in rows)


async def test_peek_status_and_get_change_no_byte(path, backend):
    handle = await backend.subscribe(KEY, "g", lease=0.05)
    await backend.append([new_message(KEY, b"%d" % n) for n in range(10)])
    held = await handle.fetch(4, 1.0)
    await handle.settle([(held[0], ACKED), (held[1], RELEASED), (held[2], Delayed(60.0))])
    await backend.put("workers", "w", b"1", ttl=0.01)
    before = content(path)
    async with SQLiteBackend(path) as other:
        for each in (backend, other):
            for group in ("g", "unknown", None):
                for after in ("", "3"):
                    await each.peek(KEY, group, limit=3, after=after)
            await each.status()
            await each.get("workers", "w")
            await each.entries("workers")
        assert content(path) == before


async def test_peek_beside_a_writer_waits_for_no_lock(path, backend):
    await backend.publish(KEY, 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM messages")
        assert [each.message.body for each in await backend.peek(KEY, None)] == [b"1"]
        other.execute("ROLLBACK")


async def test_peek_reads_deliveries_by_their_index(backend):
    steps = await plan(backend, peek._DELIVERIES, (0.0, 0.0, 1, 0, 10))
    assert "SEARCH d USING PRIMARY KEY (sid=? AND seq>?)" in steps
    assert "SEARCH m USING INTEGER PRIMARY KEY" in steps
    assert "TEMP B-TREE" not in steps


async def test_oldest_message_takes_an_index_seek_for_each_key(backend):
    steps = await plan(backend, backlog._FIRST_BY_KEY, (0, "[1]"))
    assert "SEARCH messages USING COVERING INDEX messages_by_key (key_id=? AND rowid>?)" in steps
    assert "SCAN messages" not in steps


async def test_put_and_get_use_the_indexes(backend):
    named = ("", "bucket", "name", 0.0)
    assert "USING INDEX sqlite_autoindex_entries_1 (prefix=? AND bucket=? AND name=?)" in await plan(
        backend, key_value._GET, named
    )
    assert "USING INDEX sqlite_autoindex_entries_1 (prefix=? AND bucket=? AND name=?)" in await plan(
        backend, key_value._DELETE, (*named, None)
    )
    expired = "SELECT revision FROM entries WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
    steps = await plan(backend, expired, (0.0, 10))
    assert "entries_by_expiry (expires_at<?)" in steps
    assert "TEMP B-TREE" not in steps


async def test_put_deletes_expired_entries_in_bounded_steps_and_trim_the_rest(path, backend):
    for n in range(3 * key_value.PAGE):
        await backend.put("workers", f"w{n}", b"1", ttl=60.0)

    def count():
        with closing(sqlite3.connect(path)) as other:
            return other.execute("SELECT count(*) FROM entries").fetchone()[0]

    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE entries SET expires_at = 1.0")
    assert await backend.entries("workers") == {}
    await backend.put("other", "a", b"1")
    assert count() == 2 * key_value.PAGE + 1
    await backend.trim({})
    assert count() == 1


@pytest.mark.parametrize("seed", range(3))
async def test_counts_of_a_long_connection_equal_those_of_a_new_one(path, backend, seed):
    chance = random.Random(seed)
    handles = [await backend.subscribe(pattern, "g") for pattern in (KEY, "orders.*", "#")]
    keys = [KEY, "orders.paid", "other.key"]
    for _ in range(40):
        await backend.append([new_message(chance.choice(keys), b"1") for _ in range(chance.randrange(20))])
        for handle in chance.sample(handles, 2):
            for delivery in await handle.fetch(chance.choice([1, 5, 40]), 0):
                await handle.settle([(delivery, chance.choice([ACKED, ACKED, RELEASED, Delayed(60.0)]))])
        if chance.random() < 0.3:
            await backend.trim({})
        if chance.random() < 0.1:
            await backend.drop("#", "g")
        async with SQLiteBackend(path) as fresh:
            assert list(await backend.status()) == list(await fresh.status())


async def test_count_is_right_after_newer_messages_were_claimed_and_trimmed(backend):
    handle = await backend.subscribe(KEY, "g")
    await backend.publish(KEY, 1)
    assert [status.ready for status in await backend.status()] == [1]
    await backend.append([new_message(KEY, b"1") for _ in range(5)])
    assert not await handle.settle([(delivery, ACKED) for delivery in await handle.fetch(6, 1.0)])
    assert await backend.trim({}) == 6
    await backend.append([new_message(KEY, b"1") for _ in range(3)])
    assert [status.ready for status in await backend.status()] == [3]
