"""Detection of changed files."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from abe_router.files.watch import Watch, _folders, fingerprint
from tests.limits import HANG


def test_library_that_watches_does_not_log_each_change(caplog):
    with caplog.at_level(logging.INFO):
        assert not logging.getLogger("watchfiles.main").isEnabledFor(logging.INFO)


async def test_writes_of_a_database_in_the_folder_do_not_hide_a_change(tmp_path):
    """Only a periodic check finds an edit made before the watch, so it must not wait for a quiet time."""
    watch = Watch(lambda: {tmp_path / "routes.yaml"})

    async def write():
        while True:
            (tmp_path / ".abe-router.db-wal").write_text("busy")
            await asyncio.sleep(0.005)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(HANG):
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
    """Poll every 10 ms."""
    monkeypatch.setattr("abe_router.files.watch.POLL", 10)


def polling_messages(caplog):
    return [record.message for record in caplog.records if "polled" in record.message]


@pytest.mark.parametrize("name", ["a\0b.json", "d" * 300 + "/x.json", "circle.json", "circle/x.json"])
def test_path_that_cannot_be_resolved_counts_as_missing(tmp_path, name):
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "circle").symlink_to("circle")
    there = tmp_path / "routes.yaml"
    there.touch()
    state = fingerprint([tmp_path / name, there])
    assert state[tmp_path / name] is None
    assert state[there] is not None
    assert _folders([tmp_path / name, there]) == {tmp_path}


def test_folder_without_permission_does_not_hide_others(tmp_path, monkeypatch):
    is_dir = Path.is_dir

    def refuse(path):
        if "shut" in path.parts:
            raise PermissionError(13, "Permission denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert _folders([tmp_path / "shut" / "inner" / "x.json", tmp_path / "routes.yaml"]) == {tmp_path}


async def test_folders_that_cannot_be_watched_are_polled_and_that_is_logged_once(
    tmp_path, monkeypatch, caplog, quick
):
    attempts = []

    def refuse(*folders, **options):
        attempts.append(folders)
        raise OSError("too many open files")

    monkeypatch.setattr("abe_router.files.watch.awatch", refuse)
    signs = Watch(lambda: {tmp_path / "routes.yaml"}).signs()
    async with asyncio.timeout(HANG):
        assert [await anext(signs) for _ in range(40)] == [False] * 40
    await signs.aclose()
    assert len(polling_messages(caplog)) == 1
    assert len(attempts) < 8  # the delay doubles


async def test_folders_that_can_be_watched_again_are_watched_again(tmp_path, monkeypatch, caplog, quick):
    from watchfiles import awatch

    reasons = ["too many watches", "too many watches", "too many open files"]

    def refuse_at_first(*folders, **options):
        if reasons:
            raise OSError(reasons.pop(0))
        return awatch(*folders, **options)

    monkeypatch.setattr("abe_router.files.watch.awatch", refuse_at_first)
    watch = Watch(lambda: {tmp_path / "routes.yaml"})
    async with asyncio.timeout(HANG):
        signs = watch.signs()
        while not watch.watching:
            assert await anext(signs) is False
        (tmp_path / "routes.yaml").write_text("routes: {}")
        while not await anext(signs):
            pass
    await signs.aclose()
    assert [text.rpartition(": ")[2] for text in polling_messages(caplog)] == [
        "too many watches",
        "too many open files",
    ]


async def test_a_folder_whose_name_is_not_utf8_is_polled(tmp_path, caplog, quick):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    async with asyncio.timeout(HANG):
        signs = Watch(lambda: {folder / "routes.yaml"}).signs()
        assert [await anext(signs) for _ in range(3)] == [False] * 3
    await signs.aclose()
    assert len(polling_messages(caplog)) == 1
