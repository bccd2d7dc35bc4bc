"""Commits of other connections, and what makes a waiting fetch see them."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import sys
import threading

import pytest

from abe_router.backends.sqlite import SQLiteBackend, file, notifier
from abe_router.backends.sqlite.file import File
from abe_router.errors import BackendUnavailable
from tests.limits import HANG

from .deliveries import ack, bodies, take

KEY = "orders.created"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
async def waiting(path):
    """Another connection, and a fetch on it that has begun to wait."""
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe(KEY, "billing")
        fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
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
        assert bodies(await asyncio.wait_for(waiting, HANG)) == [b"1"]


async def test_commit_without_a_touch_is_found_by_a_poll(path, waiting, monkeypatch):
    """So is the commit of a process that was killed before the touch, or of another program."""

    def refuse(*_):
        raise PermissionError

    async with SQLiteBackend(path) as other:
        monkeypatch.setattr(os, "utime", refuse)
        await other.publish(KEY, 1)
        assert bodies(await asyncio.wait_for(waiting, HANG)) == [b"1"]


async def test_without_a_watch_every_commit_is_found_by_a_poll(path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "other")
    async with SQLiteBackend(path) as backend, SQLiteBackend(path) as other:
        handle = await backend.subscribe(KEY, "billing")
        for n in range(3):
            fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
            await backend.status()
            await other.publish(KEY, n)
            deliveries = await asyncio.wait_for(fetching, HANG)
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


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """Return a list that gets each statement of all connections, and "sync" for each sync of a log."""
    found: list[str] = []
    connect = File.connect

    def traced(self: File) -> sqlite3.Connection:
        connection = connect(self)
        connection.set_trace_callback(lambda statement: found.append(statement.strip()))
        return connection

    monkeypatch.setattr(File, "connect", traced)
    monkeypatch.setattr(file, "sync", lambda fd: found.append("sync"))
    return found


async def test_claim_does_not_wait_for_the_disk_and_a_confirmation_does(path, statements):
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe(KEY, "billing")
        await backend.publish(KEY, 1)
        deliveries = await take(handle, 1)
        await ack(handle, deliveries)
    writes = ("INSERT INTO messages", "UPDATE subscriptions", "DELETE FROM deliveries", "sync")
    steps = [step for statement in statements for step in writes if statement.startswith(step)]
    assert steps[steps.index(writes[0]) :] == [writes[0], "sync", writes[1], writes[2], "sync"]


async def test_waiting_fetch_sees_a_message_before_it_is_on_the_disk(path, monkeypatch):
    is_delivered = threading.Event()
    async with SQLiteBackend(path) as backend, SQLiteBackend(path) as other:
        handle = await backend.subscribe(KEY, "billing")
        await backend.publish(KEY, 1)
        await ack(handle, await take(handle, 1))
        waiting = asyncio.create_task(take(handle, 1))
        await backend.status()
        monkeypatch.setattr(file, "sync", lambda fd: is_delivered.wait(HANG))
        publishing = asyncio.create_task(other.publish(KEY, 2))
        deliveries = await waiting
        assert not publishing.done()
        is_delivered.set()
        await publishing
        await ack(handle, deliveries)


async def test_message_whose_sync_fails_is_stored_once_and_reported(path, monkeypatch):
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with SQLiteBackend(path) as backend:
        await backend.subscribe(KEY, "billing")
        with monkeypatch.context() as patched:
            patched.setattr(file, "sync", fail)
            published = [backend.publish(KEY, n) for n in (1, 2)]
            errors = await asyncio.gather(*published, return_exceptions=True)
        assert [str(error) for error in errors] == [f"cannot sync `{path}`: Input/output error"] * 2
        assert all(isinstance(error, BackendUnavailable) for error in errors)
        assert [status.ready for status in await backend.status()] == [2]


async def test_message_of_another_process_costs_few_statements(path, statements):
    async with SQLiteBackend(path) as backend, SQLiteBackend(path) as other:
        handle = await backend.subscribe(KEY, "billing")
        for n in range(2):  # the first one prepares what later ones use
            waiting = asyncio.create_task(handle.fetch(10, 2 * HANG))
            await backend.status()
            statements.clear()
            await other.publish(KEY, n)
            deliveries = await waiting
            found = len(statements)
            await ack(handle, deliveries)
    # The publisher takes 6 with its sync, the look 11 and the claim 9.
    assert found <= 28, statements
