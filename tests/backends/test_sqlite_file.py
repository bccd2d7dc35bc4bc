"""A SQLite file that others link, mount, move, remove or restore while it is in use."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from abe_router.backends.sqlite import SQLiteBackend, checkpoint, file, thread
from abe_router.backends.sqlite.file import File
from abe_router.errors import BackendError, BackendUnavailable
from tests.limits import HANG

from .deliveries import ack, bodies, take

KEY = "orders.created"


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk before each transaction."""
    monkeypatch.setattr(file, "_CHECK_INTERVAL", 0.0)


async def counted(path: Path) -> int:
    """Return how many messages a new process sees."""
    async with SQLiteBackend(path) as other:
        return len(await other.peek("#", None, limit=1000))


def stored(path: Path) -> int:
    """Return how many messages the file holds without its log."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as alone:
        (count,) = alone.execute("SELECT count(*) FROM messages").fetchone()
    return int(count)


def copy_to(path: Path, copy: Path) -> None:
    """Copy the file with SQLite's backup API, as `.backup` and `.restore` do."""
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()


class TestSecondName:
    async def test_file_with_a_hard_link_is_refused_under_each_name(self, path):
        async with SQLiteBackend(path) as backend:
            await backend.publish(KEY, 1)
        other = path.with_name("other.db")
        other.hardlink_to(path)
        for name in (path, other):
            with pytest.raises(BackendError, match=r"2 hard links.*give it one name"):
                await SQLiteBackend(name).publish(KEY, 2)
        other.unlink()
        assert await counted(path) == 1

    async def test_hard_link_made_later_stops_no_open_backend(self, path, backend):
        await backend.publish(KEY, 1)
        other = path.with_name("other.db")
        other.hardlink_to(path)
        with pytest.raises(BackendError, match="hard links"):
            await SQLiteBackend(other).publish(KEY, 2)
        await backend.publish(KEY, 3)

    @pytest.fixture
    def mounted(self, path: Path) -> Iterator[Path]:
        """Yield a file that is mounted alone, as `docker run -v ./queue.db:/app/queue.db` mounts it."""
        path.touch()
        target = path.with_name("mounted file.db")
        target.touch()
        words = ["mount", "--bind", str(path), str(target)]
        if os.geteuid() or subprocess.run(words, check=False, capture_output=True).returncode:
            pytest.skip("this user may not mount")
        yield target
        subprocess.run(["umount", str(target)], check=True)

    async def test_file_that_is_mounted_alone_is_refused(self, path, mounted):
        with pytest.raises(BackendError, match=r"mounted as a single file.*its folder"):
            await SQLiteBackend(mounted).publish(KEY, 1)
        async with SQLiteBackend(path) as backend:
            await backend.publish(KEY, 1)
        found = {f.code: f for f in await SQLiteBackend(mounted).check_health()}
        assert "mounted as a single file" in found["D210"].message

    def test_mount_table_tells_a_file_that_is_mounted_alone(self, path, tmp_path):
        path.touch()
        mounts = tmp_path / "mounts"
        mounts.write_text(f"/dev/vda {path} ext4 rw 0 0\n")
        assert "mounted as a single file" in File(path, "full", mounts).alias()
        mounts.write_text(f"/dev/vda {tmp_path} ext4 rw 0 0\n")
        assert File(path, "full", mounts).alias() == ""

    async def test_hard_link_is_reported_by_doctor(self, path):
        async with SQLiteBackend(path) as backend:
            await backend.publish(KEY, 1)
        path.with_name("other.db").hardlink_to(path)
        (found,) = [f for f in await SQLiteBackend(path).check_health() if f.code == "D210"]
        assert (str(found.severity), "2 hard links" in found.message) == ("error", True)


class TestSymbolicLink:
    @pytest.fixture
    def link(self, path: Path, tmp_path: Path) -> Path:
        """Return a link to the file, in another folder, through a linked folder."""
        (tmp_path / "release").mkdir()
        (tmp_path / "release" / "link.db").symlink_to(path)
        (tmp_path / "current").symlink_to(tmp_path / "release")
        return tmp_path / "current" / "link.db"

    async def test_link_and_file_share_one_log(self, path, link, backend):
        async with SQLiteBackend(link) as other:
            await other.publish(KEY, 1)
            assert bodies(await take(await backend.subscribe(KEY, "g"), 1)) == [b"1"]
        assert [p.name for p in (link.parent).iterdir()] == ["link.db"]

    async def test_log_behind_a_link_is_checkpointed(self, path, link, monkeypatch):
        monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES", 100_000)
        async with SQLiteBackend(link) as backend:
            for _ in range(8):
                await backend.publish(KEY, "x" * 200_000)
                await asyncio.sleep(0.06)
            assert path.with_name("queue.db-wal").stat().st_size < 600_000

    async def test_doctor_looks_at_the_file_behind_a_link(self, link, backend):
        await backend.publish(KEY, 1)
        found = {f.code: f for f in await SQLiteBackend(link).check_health()}
        assert "is ours" in found["D201"].message
        assert "1 message" in found["D111"].message

    async def test_dangling_link_creates_the_file_it_names(self, path, link):
        async with SQLiteBackend(link) as backend:
            await backend.publish(KEY, 1)
        assert path.stat().st_mode & 0o777 == 0o600
        assert link.is_symlink()


class TestMissingFile:
    async def test_file_that_vanishes_for_a_moment_is_not_created_anew(self, path, backend):
        await backend.publish(KEY, 1)
        log = path.with_name("queue.db-wal").stat().st_ino
        path.rename(path.with_name("moved.db"))
        with pytest.raises(BackendUnavailable, match="was removed or moved while it was open"):
            await backend.publish(KEY, 2)
        with pytest.raises(BackendUnavailable, match="missing or empty, but its write-ahead log"):
            await SQLiteBackend(path).publish(KEY, 3)
        assert not path.exists()
        path.with_name("moved.db").rename(path)
        await backend.publish(KEY, 4)
        assert path.with_name("queue.db-wal").stat().st_ino == log
        assert await counted(path) == 2

    async def test_log_without_its_file_is_never_deleted(self, path):
        log = path.with_name("queue.db-wal")
        log.write_bytes(b"of another file")
        for create in (False, True):
            if create:
                path.touch()
            with pytest.raises(BackendUnavailable, match="put the file back"):
                await SQLiteBackend(path).open()
            found = {f.code: f for f in await SQLiteBackend(path).check_health()}
            assert "put the file back" in found["D201"].message
        assert log.read_bytes() == b"of another file"
        assert path.stat().st_size == 0

    async def test_file_that_stays_away_is_created_anew(
        self,
        path,
        backend,
        caplog,
        monkeypatch,
    ):
        monkeypatch.setattr(file, "GRACE", 0.2)
        await backend.publish(KEY, 1)
        path.rename(path.with_name("moved.db"))
        with pytest.raises(BackendUnavailable):
            await backend.publish(KEY, 2)
        await asyncio.sleep(0.3)
        await backend.publish(KEY, 3)
        assert "the old file held 1 message" in caplog.text
        assert await counted(path) == 1
        assert stored(path.with_name("moved.db")) == 1
        with pytest.raises(BackendUnavailable, match="restart it"):  # it has the index of the old log
            await counted(path.with_name("moved.db"))

    async def test_file_removed_with_its_log_is_created_anew(self, path, backend, monkeypatch):
        monkeypatch.setattr(file, "GRACE", 0.0)
        handle = await backend.subscribe(KEY, "g")
        waiting = asyncio.create_task(handle.fetch(1, 2 * HANG))
        await asyncio.sleep(0.05)
        for each in path.parent.iterdir():
            each.unlink()
        with pytest.raises(BackendUnavailable):
            await waiting
        await backend.publish(KEY, 1)
        assert bodies(await take(handle, 1)) == [b"1"]
        async with SQLiteBackend(path) as other:
            assert [s.in_flight for s in await other.status()] == [1]


class TestReplacedFile:
    async def test_file_swapped_in_is_not_read_with_the_log_of_the_old_one(self, path, backend, caplog):
        others = [SQLiteBackend(path) for _ in range(2)]
        await backend.publish("first.key", 1)
        copy_to(path, path.with_name("copy.db"))
        for n, each in enumerate((*others, backend)):
            await each.publish(f"key.{n}", n)
        path.with_name("old.db").hardlink_to(path)
        path.with_name("copy.db").rename(path)
        for n, each in enumerate((*others, backend)):
            await each.publish(f"new.{n}", n)
        handle = await backend.subscribe("#", "g")
        came = [delivery.message.key for delivery in await take(handle, 4)]
        assert came == ["first.key", "new.0", "new.1", "new.2"]
        assert caplog.text.count("the old file held 4 messages") == 3
        for each in others:
            await each.close()
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert stored(path.with_name("old.db")) == 4

    async def test_close_leaves_the_log_of_a_file_swapped_in(self, path, backend, monkeypatch):
        await backend.publish(KEY, 1)
        monkeypatch.setattr(file, "_CHECK_INTERVAL", 60.0)
        await backend.publish(KEY, 2)
        for each in path.parent.iterdir():
            each.unlink()
        async with SQLiteBackend(path) as other:
            await other.publish(KEY, 3)
            await backend.close()
            await other.publish(KEY, 4)
            assert path.with_name("queue.db-wal").exists()
            assert await counted(path) == 2


class TestRemovedLog:
    @pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-wal", "-shm")])
    async def test_removed_log_is_copied_into_the_file_which_is_opened_again(
        self, path, backend, caplog, monkeypatch, suffixes
    ):
        monkeypatch.setattr(file, "_CHECK_INTERVAL", 60.0)
        async with SQLiteBackend(path) as idle:
            for n in range(3):
                await backend.publish(KEY, n)
                for suffix in suffixes if n == 1 else ():
                    path.with_name(f"queue.db{suffix}").unlink()
            assert stored(path) == 3  # what another process would find if this one was killed now
            async with SQLiteBackend(path) as other:
                await other.publish(KEY, 4)
            await backend.publish(KEY, 5)
            await idle.publish(KEY, 6)
            assert len(await take(await backend.subscribe(KEY, "g"), 6)) == 6
        assert caplog.text.count("removed or replaced while it was in use") == 2
        await backend.close()
        assert stored(path) == 6

    async def test_file_is_refused_while_others_have_a_removed_log_open(self, path, monkeypatch):
        monkeypatch.setattr(file, "_LET_GO", 0.0)
        monkeypatch.setattr(thread, "_IDLE_INTERVAL", 60.0)
        async with SQLiteBackend(path) as idle:
            await idle.publish(KEY, 1)
            path.with_name("queue.db-shm").unlink()
            with pytest.raises(BackendUnavailable, match="removed or replaced while it was in use"):
                await SQLiteBackend(path).publish(KEY, 2)
            found = {f.code: f for f in await SQLiteBackend(path).check_health()}
            assert "removed or replaced while it was in use" in found["D201"].message
        assert await counted(path) == 1

    async def test_log_that_another_program_put_there_is_kept_and_not_read(self, path, backend):
        log = path.with_name("queue.db-wal")
        await backend.publish(KEY, 1)
        log.with_name("copy").write_bytes(log.read_bytes())
        await backend.publish(KEY, 2)
        log.with_name("copy").rename(log)
        strange = log.stat().st_ino
        await backend.publish(KEY, 3)
        assert await counted(path) == 3
        assert log.with_name(f"{log.name}.{strange}").exists()


class TestRestore:
    async def test_restore_in_place_is_noticed_and_counted(self, path, backend, caplog):
        copy = path.with_name("copy.db")
        await backend.publish("a", 1)
        copy_to(path, copy)
        for n in range(3):
            await backend.publish("b", n)
        handle = await backend.subscribe("#", "g")
        waiting = await backend.subscribe("c", "g")
        assert len(await take(handle, 4)) == 4
        fetching = asyncio.create_task(waiting.fetch(1, 2 * HANG))
        await asyncio.sleep(0.05)
        copy_to(copy, path)
        # The number of key `b` is that of `c` now.
        await backend.publish("c", 5)
        async with asyncio.timeout(HANG):
            assert bodies(await fetching) == [b"5"]
        assert "it lacks at least 3 messages accepted since then" in caplog.text
        handle = await backend.subscribe("#", "g")
        assert [d.message.key for d in await take(handle, 2)] == ["a", "c"]
        (status,) = [each for each in await backend.status() if each.pattern == "#"]
        assert (status.ready, status.in_flight) == (0, 2)

    async def test_exclusive_handle_goes_on_after_a_restore(self, path, backend):
        """Rows that the copy leases to the handle, which settled them since, are delivered again."""
        copy = path.with_name("copy.db")
        handle = await backend.subscribe_exclusive(KEY, "g", lease=30.0)
        for n in range(3):
            await backend.publish(KEY, n)
        first, *held = await take(handle, 3)
        copy_to(path, copy)
        await ack(handle, [first])
        copy_to(copy, path)
        (again,) = await take(handle, 1)
        assert again.message.id == first.message.id
        await ack(handle, [again, *held])
        await backend.publish(KEY, 4)
        assert bodies(await take(handle, 1)) == [b"4"]

    async def test_vacuum_of_another_program_changes_nothing(self, path, backend):
        handle = await backend.subscribe_exclusive(KEY, "g", lease=30.0)
        await backend.publish(KEY, 1)
        held = await take(handle, 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("VACUUM")
        other.close()
        await backend.publish(KEY, 2)
        (second,) = await take(handle, 1)
        assert second.message.body == b"2"
        await ack(handle, [*held, second])


async def test_file_of_another_user_is_reported_with_its_owner_and_mode(path, monkeypatch):
    def refuse(*_args, **_options):
        raise sqlite3.OperationalError("unable to open database file")

    path.touch(mode=0o600)
    monkeypatch.setattr(sqlite3, "connect", refuse)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(
        BackendUnavailable, match=rf"owner is user {os.geteuid()} and its mode -rw-------, but"
    ):
        await SQLiteBackend(path).open()
