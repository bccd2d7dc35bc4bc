"""A handle that lives on when its subscription is dropped: on memory it goes on as on SQLite."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from abe_router.backend import ACKED
from abe_router.backends.memory import MemoryBackend
from abe_router.backends.sqlite import SQLiteBackend

from .hands import bodies

KEY = "orders.created"


@pytest.fixture(params=["memory", "sqlite"])
async def backend(request, tmp_path):
    made = MemoryBackend() if request.param == "memory" else SQLiteBackend(tmp_path / "log.db")
    async with made as backend:
        yield backend


@pytest.fixture(params=["subscribe", "subscribe_exclusive"])
def subscribe(request, backend):
    return getattr(backend, request.param)


async def test_the_next_fetch_makes_a_dropped_subscription_anew(backend, subscribe):
    handle = await subscribe(KEY, "g")
    assert await backend.drop(KEY, "g")
    assert await backend.status() == []
    await backend.publish(KEY, 1)
    assert bodies(await handle.fetch(10, 1)) == [b"1"]
    assert [status.in_flight for status in await backend.status()] == [1]


async def test_it_begins_where_the_handle_said(backend, subscribe):
    await backend.publish(KEY, 1)
    first, last = await subscribe(KEY, "first"), await subscribe(KEY, "last", start=inf)
    for name in ("first", "last"):
        await backend.drop(KEY, name)
    assert bodies(await first.fetch(10, 1)) == [b"1"]
    assert bodies(await last.fetch(10, 0)) == []
    await backend.publish(KEY, 2)
    assert bodies(await last.fetch(10, 1)) == [b"2"]


async def test_a_waiting_fetch_makes_it_anew_before_there_is_something_to_miss(backend, subscribe):
    handle = await subscribe(KEY, "g", start=inf)
    waiting = asyncio.create_task(handle.fetch(10, 5))
    await asyncio.sleep(0.05)
    await backend.drop(KEY, "g")
    await backend.publish(KEY, 1)
    assert bodies(await waiting) == [b"1"]


async def test_what_was_in_hand_is_refused(backend, subscribe):
    handle = await subscribe(KEY, "g")
    await backend.publish(KEY, 1)
    before = await handle.fetch(10, 1)
    await backend.drop(KEY, "g")
    after = await handle.fetch(10, 1)
    assert await handle.extend(before) == before
    assert await handle.settle([(before[0], ACKED)]) == before
    assert not await handle.settle([(after[0], ACKED)])
    assert [(s.ready, s.in_flight) for s in await backend.status()] == [(0, 0)]


async def test_all_handles_share_the_one_that_was_made_anew(backend):
    one, other = await backend.subscribe(KEY, "g"), await backend.subscribe(KEY, "g")
    await backend.drop(KEY, "g")
    for n in range(2):
        await backend.publish(KEY, n)
    assert bodies([*await one.fetch(1, 1), *await other.fetch(1, 1)]) == [b"0", b"1"]
    assert bodies([*await one.fetch(1, 0), *await other.fetch(1, 0)]) == []
