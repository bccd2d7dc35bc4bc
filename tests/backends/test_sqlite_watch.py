"""Commits of other connections, and what makes a waiting fetch see them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys

import pytest

from abe_router.backends.sqlite import SQLiteBackend, notifier
from abe_router.backends.sqlite.file import File

from .deliveries import ack, bodies, take

KEY = "orders.created"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
async def waiting(path):
    """Another connection, and a fetch on it that has begun to wait."""
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe(KEY, "billing")
        fetching = asyncio.create_task(handle.fetch(10, 30.0))
        await backend.status()  # the thread has taken in the fetch before it answers
        yield fetching
        fetching.cancel()


@pytest.fixture
def _never_polls(monkeypatch):
    for name in ("FIRST_INTERVAL", "LAST_INTERVAL", "WATCHED_INTERVAL"):
        monkeypatch.setattr(notifier, name, 60.0)


@pytest.mark.usefixtures("_never_polls")
async def test_commit_of_another_connection_wakes_a_fetch_without_a_poll(path, waiting):
    async with SQLiteBackend(path) as other:
        await other.publish(KEY, 1)
        assert bodies(await asyncio.wait_for(waiting, 10)) == [b"1"]


async def test_commit_without_a_touch_is_found_by_a_poll(path, waiting, monkeypatch):
    """So is the commit of a process that was killed before the touch, or of another program."""

    def refuse(*_):
        raise PermissionError

    async with SQLiteBackend(path) as other:
        monkeypatch.setattr(os, "utime", refuse)
        await other.publish(KEY, 1)
        assert bodies(await asyncio.wait_for(waiting, 10)) == [b"1"]


async def test_without_a_watch_every_commit_is_found_by_a_poll(path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "other")
    async with SQLiteBackend(path) as backend, SQLiteBackend(path) as other:
        handle = await backend.subscribe(KEY, "billing")
        for n in range(3):
            fetching = asyncio.create_task(handle.fetch(10, 30.0))
            await backend.status()
            await other.publish(KEY, n)
            deliveries = await asyncio.wait_for(fetching, 10)
            assert bodies(deliveries) == [b"%d" % n]
            await ack(handle, deliveries)


async def test_idle_thread_does_not_spin_while_others_publish(path, monkeypatch):
    """A touch that no fetch waits for stays unread."""
    async with SQLiteBackend(path) as backend, SQLiteBackend(path) as other:
        handle = await backend.subscribe(KEY, "billing")
        await other.publish(KEY, 0)
        await take(handle, 1)
        rounds = 0
        thread = backend._thread
        run_round = thread._run_round

        def count(arrived):
            nonlocal rounds
            rounds += 1
            run_round(arrived)

        monkeypatch.setattr(thread, "_run_round", count)
        for n in range(20):
            await other.publish(KEY, n)
        await backend.status()
        assert rounds == 1


async def test_claim_does_not_wait_for_the_disk_and_a_confirmation_does(path, monkeypatch):
    statements: list[str] = []
    connect = File.connect

    def traced(self: File) -> sqlite3.Connection:
        connection = connect(self)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(File, "connect", traced)
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe(KEY, "billing")
        await backend.publish(KEY, 1)
        deliveries = await take(handle, 1)
        await ack(handle, deliveries)
    writes = ("INSERT INTO messages", "UPDATE subscriptions", "DELETE FROM deliveries")
    levels, level = {}, "full"
    for statement in map(str.strip, statements):
        if statement.startswith("PRAGMA synchronous"):
            level = statement.rpartition(" ")[2]
        levels.update((write, level) for write in writes if statement.startswith(write))
    assert levels == dict(zip(writes, ("full", "normal", "full"), strict=True))
