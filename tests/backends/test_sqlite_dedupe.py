"""The ids that the SQLite provider keeps: in the transaction of their messages, and no longer than asked."""

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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
async def backend(path):
    async with SQLiteBackend(path) as backend:
        yield backend


def windowed(*names, window=60.0, key=KEY):
    return [(new_message(key, b"1", id=name), window) for name in names]


def rows(path, sql="SELECT count(*) FROM dedupe_ids"):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


def age(path, seconds):
    """Let the windows of all ids end so many seconds sooner."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE dedupe_ids SET expires_at = expires_at - ?", (seconds,))


async def test_what_has_ended_is_forgotten_by_who_publishes_in_bounded_steps(backend, path):
    await backend.append_once(windowed(*(f"old-{n}" for n in range(2_000))))
    age(path, 60.0)
    await backend.append_once(windowed("a"))
    assert rows(path) == 2_001 - dedupe.PAGE - 1
    for n in range(3):
        await backend.append_once(windowed(f"b{n}"))
    assert rows(path) == 4


async def test_what_has_ended_is_forgotten_by_who_trims_when_nobody_publishes(backend, path):
    await backend.append_once(windowed("a", "b"))
    await backend.trim({})
    assert rows(path) == 2
    age(path, 60.0)
    await backend.trim({})
    assert rows(path) == 0


async def test_an_id_that_has_ended_and_is_still_there_is_as_good_as_none(backend, path, monkeypatch):
    monkeypatch.setattr(dedupe, "delete_expired", lambda *_: None)
    await backend.append_once(windowed("a", "b"))
    age(path, 60.0)
    assert await backend.append_once(windowed("a", "a")) != []
    assert rows(path, "SELECT count(*) FROM messages") == 3
    assert rows(path, f"SELECT count(*) FROM dedupe_ids WHERE expires_at > {time.time()}") == 1


async def test_without_a_window_no_id_is_kept(backend, path):
    await backend.append_once(windowed("a", window=0.0))
    assert (rows(path), rows(path, "SELECT count(*) FROM messages")) == (0, 1)


async def test_no_id_is_remembered_whose_message_was_refused(backend, path):
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


async def test_what_is_not_text_is_refused_before_anything_is_kept(backend, path):
    with pytest.raises(PayloadUnencodable, match="Unicode"):
        await backend.append_once([*windowed("a"), (Message("\ud800", KEY, b"1"), 60.0)])
    assert rows(path, "SELECT count(*) FROM messages") == 0


async def test_callers_of_one_turn_share_a_commit(backend, path):
    await backend.append_once(windowed("warm"))
    before = (await asyncio.to_thread(path.with_name("log.db-wal").stat)).st_size
    await asyncio.gather(*(backend.append_once(windowed(f"i{n}")) for n in range(50)))
    written = path.with_name("log.db-wal").stat().st_size - before
    assert written < 50 * 4096, "each had a commit of its own"


async def test_prefixes_share_no_ids(path):
    async with SQLiteBackend(path, prefix="a.") as one, SQLiteBackend(path, prefix="b.") as other:
        assert await one.append_once(windowed("x")) == []
        assert await other.append_once(windowed("x")) == []
