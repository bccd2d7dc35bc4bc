"""Signs that it is worth to look at the files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from abe_router.files.watch import Watch, _folders, fingerprint


async def test_a_busy_database_beside_the_file_hides_nothing(tmp_path):
    """What was edited before the watch began is found by looking, and the looking must not wait for quiet."""
    watch = Watch(lambda: {tmp_path / "routes.yaml"})

    async def write():
        while True:
            (tmp_path / ".abe-router.db-wal").write_text("busy")
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(5):
        signs = watch.signs()
        assert [await anext(signs) for _ in range(3)] == [False] * 3
        (tmp_path / "routes.yaml").write_text("routes: {}")
        while not await anext(signs):
            pass
    writing.cancel()
    await asyncio.wait({writing})
    await signs.aclose()


@pytest.fixture
def quick(monkeypatch):
    """Poll every hundredth of a second."""
    monkeypatch.setattr("abe_router.files.watch.POLL", 10)


def told(caplog):
    return [record.message for record in caplog.records if "polled" in record.message]


@pytest.mark.parametrize("name", ["a\0b.json", "d" * 300 + "/x.json", "circle.json", "circle/x.json"])
def test_a_file_that_cannot_be_looked_up_is_not_there_and_hides_no_other(tmp_path, name):
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "circle").symlink_to("circle")
    there = tmp_path / "routes.yaml"
    there.touch()
    state = fingerprint([tmp_path / name, there])
    assert state[tmp_path / name] is None
    assert state[there] is not None
    assert _folders([tmp_path / name, there]) == {tmp_path}


def test_a_folder_that_cannot_be_entered_hides_no_other(tmp_path, monkeypatch):
    is_dir = Path.is_dir

    def refuse(path):
        if "shut" in path.parts:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert _folders([tmp_path / "shut" / "inner" / "x.json", tmp_path / "routes.yaml"]) == {tmp_path}


async def test_what_cannot_be_watched_is_polled_and_that_is_told_once(tmp_path, monkeypatch, caplog, quick):
    tries = []

    def refuse(*folders, **options):
        tries.append(folders)
        raise OSError("too many open files")

    monkeypatch.setattr("abe_router.files.watch.awatch", refuse)
    signs = Watch(lambda: {tmp_path / "routes.yaml"}).signs()
    async with asyncio.timeout(5):
        assert [await anext(signs) for _ in range(40)] == [False] * 40
    await signs.aclose()
    assert len(told(caplog)) == 1
    assert len(tries) < 8  # each time after twice as long


async def test_what_can_be_watched_again_is_watched_again(tmp_path, monkeypatch, caplog, quick):
    from watchfiles import awatch

    reasons = ["too many watches", "too many watches", "too many open files"]

    def refuse_at_first(*folders, **options):
        if reasons:
            raise OSError(reasons.pop(0))
        return awatch(*folders, **options)

    monkeypatch.setattr("abe_router.files.watch.awatch", refuse_at_first)
    watch = Watch(lambda: {tmp_path / "routes.yaml"})
    async with asyncio.timeout(5):
        signs = watch.signs()
        while not watch.watching:
            assert await anext(signs) is False
        (tmp_path / "routes.yaml").write_text("routes: {}")
        while not await anext(signs):
            pass
    await signs.aclose()
    assert [text.rpartition(": ")[2] for text in told(caplog)] == ["too many watches", "too many open files"]


async def test_a_folder_whose_name_is_not_utf8_is_polled(tmp_path, caplog, quick):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    async with asyncio.timeout(5):
        signs = Watch(lambda: {folder / "routes.yaml"}).signs()
        assert [await anext(signs) for _ in range(3)] == [False] * 3
    await signs.aclose()
    assert len(told(caplog)) == 1
