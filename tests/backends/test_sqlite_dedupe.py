"""Deduplication on SQLite: ids are stored with their messages, and deleted in bounded steps."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from abe_router.backends.sqlite import SQLiteBackend, dedupe
from abe_router.errors import PayloadUnencodable
from abe_router.messages.message import Message, new_message

KEY = "orders.created"


def windowed(*names, window=60.0, key=KEY):
    return [(new_message(key, b"1", id=name), window) for name in names]


def rows(path, sql="SELECT count(*) FROM dedupe_ids"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


def age(path, seconds):
    """Let the windows of all ids end that many seconds sooner."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE dedupe_ids SET expires_at = expires_at - ?", (seconds,))


async def test_append_deletes_expired_ids_in_bounded_steps(backend, path):
    await backend.append_once(windowed(*(f"old-{n}" for n in range(2_000))))
    age(path, 60.0)
    await backend.append_once(windowed("a"))
    assert rows(path) == 2_001 - dedupe.PAGE - 1
    for n in range(3):
        await backend.append_once(windowed(f"b{n}"))
    assert rows(path) == 4


async def test_trim_deletes_expired_ids(backend, path):
    await backend.append_once(windowed("a", "b"))
    await backend.trim({})
    assert rows(path) == 2
    age(path, 60.0)
    await backend.trim({})
    assert rows(path) == 0


async def test_expired_id_that_is_still_stored_counts_for_nothing(backend, path, monkeypatch):
    monkeypatch.setattr(dedupe, "delete_expired", lambda *_: None)
    await backend.append_once(windowed("a", "b"))
    age(path, 60.0)
    assert await backend.append_once(windowed("a", "a")) != []
    assert rows(path, "SELECT count(*) FROM messages") == 3
    assert rows(path, f"SELECT count(*) FROM dedupe_ids WHERE expires_at > {time.time()}") == 1


async def test_no_id_is_stored_without_a_window(backend, path):
    await backend.append_once(windowed("a", window=0.0))
    assert (rows(path), rows(path, "SELECT count(*) FROM messages")) == (0, 1)


async def test_no_id_is_stored_when_its_message_is_refused(backend, path):
    await backend.open()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON messages BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    with pytest.raises(Exception, match="no more"):
        await backend.append_once(windowed("a"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TRIGGER refuse")
    assert await backend.append_once(windowed("a")) == []


async def test_id_that_is_not_text_is_refused_before_any_write(backend, path):
    with pytest.raises(PayloadUnencodable, match="Unicode"):
        await backend.append_once([*windowed("a"), (Message("\ud800", KEY, b"1"), 60.0)])
    assert rows(path, "SELECT count(*) FROM messages") == 0


async def test_calls_of_one_turn_share_a_commit(backend, path):
    await backend.append_once(windowed("warm"))
    before = (await asyncio.to_thread(path.with_name("queue.db-wal").stat)).st_size
    await asyncio.gather(*(backend.append_once(windowed(f"i{n}")) for n in range(50)))
    written = path.with_name("queue.db-wal").stat().st_size - before
    assert written < 50 * 4096, "each call had its own commit"


async def test_prefixes_have_separate_ids(path):
    async with SQLiteBackend(path, prefix="a.") as one, SQLiteBackend(path, prefix="b.") as other:
        assert await one.append_once(windowed("x")) == []
        assert await other.append_once(windowed("x")) == []
