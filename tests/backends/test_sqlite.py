"""The SQLite provider: its URL, its file, locks, and fetches that are given up."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from abe_router.backend import ACKED
from abe_router.backends import make_backend
from abe_router.backends.sqlite import SQLiteBackend, database, file
from abe_router.backends.sqlite.operations import Fetch
from abe_router.errors import BackendError, BackendUnavailable, PayloadUnencodable, SubscriptionClosed
from abe_router.messages.message import Message, new_message
from tests.limits import HANG

from .deliveries import bodies, drain

KEY = "orders.created"


class TestUrl:
    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:////var/lib/queue.db", "/var/lib/queue.db"),
            ("sqlite:////var/a%20b%3F.db?synchronous=normal", "/var/a b?.db"),
            ("sqlite:////var/#1.db", "/var/#1.db"),
        ],
    )
    def test_absolute_path_has_a_fourth_slash(self, url, path):
        assert SQLiteBackend.from_url(url).url == f"sqlite:///{path}"

    def test_relative_path_is_resolved_in_the_current_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert SQLiteBackend.from_url("sqlite:///a/b.db").url == f"sqlite:///{tmp_path}/a/b.db"

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("sqlite://queue.db", "write `sqlite:///relative.db`"),
            ("sqlite://", "write `sqlite:///relative.db`"),
            ("sqlite:///", "write `sqlite:///relative.db`"),
            ("sqlite:///:memory:", "write `memory://`"),
            ("sqlite:///a.db?synchronous=off", "`full` or `normal`, not `off`"),
            ("sqlite:///a.db?timeout=0", "`timeout` must be a number of seconds above 0"),
        ],
    )
    def test_malformed_url_is_refused_with_the_right_form(self, url, why):
        with pytest.raises(BackendError, match=why):
            make_backend(url)

    def test_from_env_uses_sqlite_path_or_the_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert SQLiteBackend.from_env({"SQLITE_PATH": "/x.db"}).url == "sqlite:////x.db"
        assert SQLiteBackend.from_env({}).url == f"sqlite:///{tmp_path}/.abe-router.db"

    @pytest.mark.parametrize(
        ("option", "syncs"), [("", 1), ("?synchronous=full", 1), ("?synchronous=normal", 0)]
    )
    async def test_synchronous_is_full_by_default(self, path, option, syncs, monkeypatch):
        synced: list[int] = []
        monkeypatch.setattr(file, "sync", synced.append)
        async with SQLiteBackend.from_url(f"sqlite:///{path}{option}") as backend:
            assert await backend._read(lambda d: d.execute("PRAGMA synchronous").fetchone()) == (1,)
            await backend.publish("orders.created", 1)
            assert len(synced) == syncs


class TestFile:
    async def test_new_file_is_readable_by_its_owner_only(self, path, backend):
        await backend.publish(KEY, 1)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
        names = "queue.db", "queue.db-wal", "queue.db-shm", "queue.db.lock"
        assert modes == dict.fromkeys(names, 0o600)

    async def test_closing_leaves_one_file_and_no_thread(self, path):
        threads = set(threading.enumerate())
        async with SQLiteBackend(path) as backend:
            await backend.publish(KEY, 1)
        assert sorted(p.name for p in path.parent.iterdir()) == ["queue.db", "queue.db.lock"]
        assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile

    @pytest.mark.parametrize("rounds", [1, 2])
    async def test_cancelled_open_leaves_no_thread(self, path, rounds):
        threads = set(threading.enumerate())
        opening = asyncio.create_task(SQLiteBackend(path).open())
        for _ in range(rounds):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait({opening})
        assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("none/queue.db", "folder `.*none` does not exist"),
            (".", "it is a folder"),
            ("queue.db/x", "does not exist"),
        ],
    )
    async def test_failed_open_is_unavailable_and_leaves_no_thread(self, path, name, why):
        path.write_text("")
        threads = set(threading.enumerate())
        with pytest.raises(BackendUnavailable, match=why):
            await SQLiteBackend(path.parent / name).open()
        assert set(threading.enumerate()) <= threads  # those of other tests may end meanwhile

    async def test_failed_open_can_be_tried_again(self, path):
        backend = SQLiteBackend(path.parent / "later" / "queue.db")
        with pytest.raises(BackendUnavailable):
            await backend.publish(KEY, 1)
        (path.parent / "later").mkdir()
        await backend.publish(KEY, 2)
        assert bodies(await drain(await backend.subscribe(KEY, "g"))) == [b"2"]
        await backend.close()

    async def test_file_that_is_no_database_is_not_changed(self, path):
        path.write_bytes(b"name,price\n" * 100)
        with pytest.raises(BackendError, match="is not a SQLite database"):
            await SQLiteBackend(path).open()
        assert path.read_bytes() == b"name,price\n" * 100

    async def test_database_of_another_program_is_not_changed(self, path):
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE messages (id)")
        other.close()
        before = path.read_bytes()
        with pytest.raises(BackendError, match="a SQLite database of another program"):
            await SQLiteBackend(path).open()
        assert path.read_bytes() == before

    async def test_file_of_a_newer_version_is_refused(self, path, backend):
        await backend.close()
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 99")
        other.close()
        with pytest.raises(BackendError, match=r"a newer abe-router wrote it.*99"):
            await backend.open()

    async def test_file_of_an_older_version_is_refused(self, path, backend):
        await backend.close()
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 1")
        other.close()
        with pytest.raises(BackendError, match=r"an older abe-router wrote it.*name a new file"):
            await backend.open()

    async def test_old_sqlite_is_refused(self, path, monkeypatch):
        monkeypatch.setattr(file.sqlite3, "sqlite_version_info", (3, 34, 1))
        with pytest.raises(BackendError, match=r"too old: 3\.35\.0 or newer"):
            await SQLiteBackend(path).open()

    async def test_many_backends_create_the_file_at_the_same_time(self, path):
        backends = [SQLiteBackend(path) for _ in range(8)]
        await asyncio.gather(*(backend.publish(KEY, n) for n, backend in enumerate(backends)))
        handle = await backends[0].subscribe(KEY, "g")
        assert sorted(bodies(await drain(handle))) == [b"%d" % n for n in range(8)]
        for each in backends:
            await each.close()

    async def test_prefixes_in_one_file_are_separate(self, path, backend):
        other = SQLiteBackend(path, prefix="a.")
        await other.publish("b.c", 1)
        await backend.publish("a.b.c", 2)
        await backend.put("workers", "w", b"here")
        for one, expected in ((backend, [b"2"]), (other, [b"1"])):
            assert bodies(await drain(await one.subscribe("#", "g"))) == expected
        assert len(await other.status()) == 1
        assert await other.entries("workers") == {}
        assert list(await other.peek("#", "other")) == []
        await other.close()

    async def test_messages_written_with_sql_are_delivered(self, path, backend):
        await backend.publish(KEY, 1)
        with sqlite3.connect(path) as other:
            other.execute("INSERT INTO keys (prefix, key) VALUES ('', 'by.hand')")
            other.execute("INSERT INTO messages (key_id, body) SELECT key_id, '{not json' FROM keys")
            other.execute("UPDATE messages SET headers = 'neither'")
        other.close()
        came = [delivery.message for delivery in await drain(await backend.subscribe("#", "g"))]
        assert [(m.key, m.body, m.headers) for m in came] == [
            (KEY, b"1", {}),
            (KEY, b"{not json", {}),
            ("by.hand", b"{not json", {}),
        ]
        assert len({m.id for m in came}) == 3
        assert all(abs(m.published_at - came[0].published_at) < 5 for m in came)

    def test_use_after_a_fork_is_refused(self, path):
        code = """
import asyncio, os, sys
from pathlib import Path
from abe_router.backends.sqlite import SQLiteBackend

backend = SQLiteBackend(Path(sys.argv[1]))
async def use():
    await backend.publish("a", 1)
asyncio.run(use())
if os.fork() == 0:
    try:
        asyncio.run(use())
    except Exception as error:
        print(error, flush=True)
    asyncio.run(backend.close())
    os._exit(0)
os.wait()
asyncio.run(use())
asyncio.run(backend.close())
"""
        out = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, path], capture_output=True, text=True, timeout=20
        )
        assert (out.returncode, out.stderr) == (0, "")
        assert "was opened before a fork" in out.stdout
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT count(*) FROM messages").fetchone() == (2,)
        other.close()


class TestLock:
    async def test_publish_waits_for_a_locked_file(self, backend, locked):
        locked.execute("BEGIN IMMEDIATE")
        publishing = asyncio.create_task(backend.publish(KEY, 1))
        await asyncio.sleep(0.05)
        assert not publishing.done()
        locked.execute("COMMIT")
        await publishing

    async def test_long_lock_makes_calls_unavailable_until_it_ends(self, backend, locked, monkeypatch):
        monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.05)
        locked.execute("BEGIN IMMEDIATE")
        ended = await asyncio.gather(*(backend.publish(KEY, n) for n in range(3)), return_exceptions=True)
        assert [type(error) for error in ended] == [BackendUnavailable] * 3
        assert "is locked by another process" in str(ended[0])
        locked.execute("COMMIT")
        await backend.publish(KEY, 3)
        assert bodies(await drain(await backend.subscribe(KEY, "g"))) == [b"3"]

    @pytest.mark.alone
    async def test_close_waits_for_a_lock_at_most_a_second(self, backend, locked, control):
        locked.execute("BEGIN IMMEDIATE")
        publishing = asyncio.create_task(backend.publish(KEY, 1))
        await asyncio.sleep(0.02)
        began = time.time()
        await backend.close()
        with pytest.raises(BackendUnavailable):
            await publishing
        assert control.since(began) < 3

    @pytest.mark.alone
    async def test_close_with_many_handles_waits_for_a_lock_once(self, backend, locked, control):
        for name in "abc":
            handle = await backend.subscribe_exclusive(name, "g")
            await handle.fetch(1, 0)
        locked.execute("BEGIN IMMEDIATE")
        began = time.time()
        await backend.close()
        assert control.since(began) < 3

    async def test_full_disk_keeps_accepted_messages_and_lets_acks_through(self, backend):
        handle = await backend.subscribe(KEY, "g")
        await backend.publish(KEY, "first")
        held = await handle.fetch(10, 1)
        await backend._write(lambda d: d.execute("PRAGMA max_page_count = 60"))
        accepted = []

        async def fill():
            while True:
                accepted.append(await backend.publish(KEY, "x" * 5000))

        with pytest.raises(BackendUnavailable, match="the disk is full"):
            await fill()
        assert not await handle.settle([(held[0], ACKED)])
        assert len(await drain(handle)) == len(accepted) > 5
        await backend._write(lambda d: d.execute("PRAGMA max_page_count = 100000"))
        await backend.publish(KEY, "again")
        assert bodies(await drain(handle)) == [b'"again"']

    async def test_failed_call_does_not_fail_others_of_its_transaction(self, backend):
        bad = Message("id", KEY, None)
        calls = [
            backend.publish(KEY, 0),
            backend.append([bad]),
            backend.publish("new.key", 1),
            backend.status(),
        ]
        good, failed, new, status = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(failed, BackendError)
        assert status == []
        came = await drain(await backend.subscribe("#", "g"))
        assert [(d.message.id, d.message.key) for d in came] == [(good.id, KEY), (new.id, "new.key")]

    async def test_key_of_a_rolled_back_message_is_forgotten(self, path, backend):
        with pytest.raises(BackendError):
            await backend.append([new_message("key.a", b"1"), Message("id", KEY, None)])
        async with SQLiteBackend(path) as other:
            await other.publish("key.b", "b")
            await backend.publish("key.a", "a")
            came = await drain(await other.subscribe("#", "g"))
        assert [(d.message.key, d.message.body) for d in came] == [("key.b", b'"b"'), ("key.a", b'"a"')]

    async def test_id_or_header_that_is_not_text_is_refused_before_any_write(self, backend):
        with pytest.raises(PayloadUnencodable):
            await backend.append([new_message(KEY, b"1"), Message("id", KEY, b"1", {"a": "\ud800"})])
        with pytest.raises(PayloadUnencodable):
            await backend.append([Message("\udcff", KEY, b"1")])
        assert await drain(await backend.subscribe(KEY, "g")) == []


class TestFetch:
    async def test_closed_fetch_raises_while_the_file_is_locked_and_releases(self, backend, locked):
        closed, other = await backend.subscribe(KEY, "g"), await backend.subscribe(KEY, "g")
        await backend.publish(KEY, 1)
        locked.execute("BEGIN IMMEDIATE")
        fetching = asyncio.create_task(closed.fetch(1, 2 * HANG))
        await asyncio.sleep(0.02)
        await closed.close()
        async with asyncio.timeout(HANG):
            with pytest.raises(SubscriptionClosed):
                await fetching
        locked.execute("COMMIT")
        (delivery,) = await other.fetch(1, HANG)
        assert delivery.deliveries == 1

    async def test_fetch_cancelled_with_its_result_releases_it(self, backend, monkeypatch):
        handle = await backend.subscribe(KEY, "g")
        await backend.publish(KEY, 1)
        resolve = Fetch.resolve

        def cancel_too(fetch, result):
            resolve(fetch, result)
            fetching.cancel()

        monkeypatch.setattr(Fetch, "resolve", cancel_too)
        fetching = asyncio.create_task(handle.fetch(1, 2 * HANG))
        with pytest.raises(asyncio.CancelledError):
            await fetching
        monkeypatch.undo()
        (delivery,) = await handle.fetch(1, HANG)
        assert delivery.deliveries == 1

    async def test_interrupted_fetch_returns_while_the_file_is_locked(self, backend, locked):
        handle = await backend.subscribe(KEY, "g")
        await backend.publish(KEY, 1)
        locked.execute("BEGIN IMMEDIATE")
        fetching = asyncio.create_task(handle.fetch(1, 2 * HANG))
        await asyncio.sleep(0.02)
        handle.interrupt()
        async with asyncio.timeout(HANG):
            assert not await fetching
        locked.execute("COMMIT")
        (delivery,) = await handle.fetch(1, HANG)
        assert delivery.deliveries == 1

    async def test_waiting_fetch_writes_nothing(self, path, backend, locked):
        handles = [await backend.subscribe(pattern, "g") for pattern in (KEY, "#", "other.*")]
        version = locked.execute("PRAGMA data_version").fetchone()
        size = path.with_name("queue.db-wal").stat().st_size
        assert await asyncio.gather(*(handle.fetch(1, 0.15) for handle in handles)) == [(), (), ()]
        assert locked.execute("PRAGMA data_version").fetchone() == version
        assert path.with_name("queue.db-wal").stat().st_size == size
