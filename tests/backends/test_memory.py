"""The memory provider: dropped subscriptions, remembered ids, and its key-value store."""

from __future__ import annotations

import asyncio
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abe_router.backend import ACKED
from abe_router.backends.memory import MemoryBackend
from abe_router.backends.memory.key_value import REMOVED_PER_PUT, KeyValueStore
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.messages.message import new_message

from .deliveries import bodies

KEY = "orders.created"
CALLS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.0, 0.5, 1.0, 4.0)),  # how much later
        st.lists(
            st.tuples(
                st.sampled_from(("a.b", "a.c")), st.sampled_from("xyz"), st.sampled_from((0.0, 1.0, 3.0))
            ),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=30,
)


class Clock:
    """A clock that stands still until it is set."""

    now = 100.0

    def __call__(self):
        return self.now


@given(CALLS)
async def test_message_is_a_duplicate_until_the_window_of_the_first_ends(calls):
    now, accepted, kept = 0.0, [], []
    backend = MemoryBackend(clock=lambda: now)
    for later, given_messages in calls:
        now += later
        windowed = [(new_message(key, b"1", id=id), window) for key, id, window in given_messages]
        expected = []
        for message, window in windowed:
            name = (message.key, message.id)
            if window and any(n == name and at <= now < until for n, at, until in accepted):
                expected.append(message)
                continue
            kept.append(message)
            if window:
                accepted.append((name, now, now + window))
        assert list(await backend.append_once(windowed)) == expected
        if any(window for _, window in windowed):
            assert len(backend._dedupe) == len({name for name, _, until in accepted if now < until})
    handle = await backend.subscribe("#", "all")
    assert [delivery.message.id for delivery in await handle.fetch(1_000, 0)] == [m.id for m in kept]


def test_put_removes_a_few_expired_entries_at_a_time():
    clock = Clock()
    store = KeyValueStore(clock)
    for number in range(100):
        store.put("workers", f"host:{number}", b"x", None, 5.0)
    clock.now += 5.0
    for puts in range(1, 4):
        store.put("edits", "1", b"x", None, None)
        assert len(store._buckets["workers"]) == 100 - puts * REMOVED_PER_PUT
    assert store.entries("workers") == {}


def test_store_forgets_the_ends_of_replaced_and_deleted_entries():
    clock = Clock()
    store = KeyValueStore(clock)
    for number in range(10_000):
        store.put("workers", "host:1", b"x", None, 5.0)
        store.put("edits", f"{number}", b"x", None, 5.0)
        store.delete("edits", f"{number}", None)
    assert len(store._ends) <= 100
    assert set(store._buckets) == {"workers"}


def test_replaced_entry_outlives_the_end_of_the_one_before():
    clock = Clock()
    store = KeyValueStore(clock)
    store.put("workers", "host:1", b"x", None, 5.0)
    store.put("workers", "host:1", b"y", None, None)
    clock.now += 6.0
    store.put("workers", "host:2", b"z", None, None)
    assert {name: entry.value for name, entry in store.entries("workers").items()} == {
        "host:1": b"y",
        "host:2": b"z",
    }


async def test_delayed_messages_stay_delayed_for_handles_without_order():
    backend = MemoryBackend()
    exclusive = await backend.subscribe_exclusive(KEY, "g")
    for n in range(3):
        await backend.publish(KEY, n)
    held = await exclusive.fetch(3, 1)
    for delivery in held:
        await exclusive.postpone([(delivery, 60.0)])
    await exclusive.close()
    other = await backend.subscribe_exclusive(KEY, "g")
    assert bodies(await other.fetch(1, 1)) == [b"0"]
    plain = await backend.subscribe(KEY, "g")
    assert bodies(await plain.fetch(10, 0)) == []
    assert [each.state for each in await backend.peek(KEY, "g")] == ["delayed"] * 3


@pytest.fixture(params=["memory", "sqlite"])
async def backend(request, tmp_path):
    made = MemoryBackend() if request.param == "memory" else SQLiteBackend(tmp_path / "log.db")
    async with made as backend:
        yield backend


@pytest.fixture(params=["subscribe", "subscribe_exclusive"])
def subscribe(request, backend):
    return getattr(backend, request.param)


async def test_next_fetch_makes_a_dropped_subscription_again(backend, subscribe):
    handle = await subscribe(KEY, "g")
    assert await backend.drop(KEY, "g")
    assert await backend.status() == []
    await backend.publish(KEY, 1)
    assert bodies(await handle.fetch(10, 1)) == [b"1"]
    assert [status.in_flight for status in await backend.status()] == [1]


async def test_subscription_made_again_has_the_start_of_its_handle(backend, subscribe):
    await backend.publish(KEY, 1)
    first, last = await subscribe(KEY, "first"), await subscribe(KEY, "last", start=inf)
    for name in ("first", "last"):
        await backend.drop(KEY, name)
    assert bodies(await first.fetch(10, 1)) == [b"1"]
    assert bodies(await last.fetch(10, 0)) == []
    await backend.publish(KEY, 2)
    assert bodies(await last.fetch(10, 1)) == [b"2"]


async def test_waiting_fetch_makes_a_dropped_subscription_again_before_the_next_message(backend, subscribe):
    handle = await subscribe(KEY, "g", start=inf)
    waiting = asyncio.create_task(handle.fetch(10, 5))
    await asyncio.sleep(0.05)
    await backend.drop(KEY, "g")
    await backend.publish(KEY, 1)
    assert bodies(await waiting) == [b"1"]


async def test_delivery_of_a_dropped_subscription_is_refused(backend, subscribe):
    handle = await subscribe(KEY, "g")
    await backend.publish(KEY, 1)
    before = await handle.fetch(10, 1)
    await backend.drop(KEY, "g")
    after = await handle.fetch(10, 1)
    assert await handle.extend(before) == before
    assert await handle.settle([(before[0], ACKED)]) == before
    assert not await handle.settle([(after[0], ACKED)])
    assert [(s.ready, s.in_flight) for s in await backend.status()] == [(0, 0)]


async def test_all_handles_share_the_subscription_made_again(backend):
    one, other = await backend.subscribe(KEY, "g"), await backend.subscribe(KEY, "g")
    await backend.drop(KEY, "g")
    for n in range(2):
        await backend.publish(KEY, n)
    assert bodies([*await one.fetch(1, 1), *await other.fetch(1, 1)]) == [b"0", b"1"]
    assert bodies([*await one.fetch(1, 0), *await other.fetch(1, 0)]) == []
