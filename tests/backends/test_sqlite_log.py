"""The log of the SQLite provider: patterns, the backlog and its counts, the start of a group, the clock."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import msgspec
import pytest

from abe_router.backend import ACKED
from abe_router.backends.sqlite import backlog, lease, retention
from abe_router.messages.message import Message, new_message
from abe_router.messages.pattern import matches
from tests.limits import HANG

from .deliveries import bodies, drain

KEY = "orders.created"


@pytest.mark.parametrize("seed", range(4))
async def test_pattern_gets_its_messages_in_order_however_rare_they_are(backend, seed):
    chance = random.Random(seed)
    weights = {f"often.k{n}": 100 for n in range(90)}
    weights |= {f"few.k{n}": 30 for n in range(5)}  # found by the index of each
    weights |= {f"many.k{n}": 2 for n in range(70)}  # too many for that
    handles = {
        pattern: (await backend.subscribe(pattern, "g"), [])
        for pattern in ("often.*", "few.*", "many.#", "#", "*.k0", "often.k1", "none.*")
    }
    sent = []
    for _ in range(6):
        drawn = chance.choices([*weights], [*weights.values()], k=chance.randrange(1, 400))
        batch = [new_message(key, b"0") for key in drawn]
        await backend.append(batch)
        sent += batch
        for handle, came in handles.values():
            for _ in range(chance.randrange(30)):
                came += await handle.fetch(chance.choice([1, 3, 50]), 0)
    for pattern, (handle, came) in handles.items():
        came += await drain(handle)
        expected = [message.id for message in sent if matches(pattern, message.key)]
        assert [delivery.message.id for delivery in came] == expected, pattern


@pytest.mark.parametrize("keys", [2, 5, 70])
async def test_messages_far_apart_in_the_log_are_all_delivered_in_order(backend, keys):
    apart = [[new_message(f"rare.k{n}", b"1")] + [new_message(KEY, b"0")] * 50 for n in range(keys)]
    await backend.append([message for part in apart for message in part])
    came = await drain(await backend.subscribe("rare.*", "g"), 1)
    assert [delivery.message for delivery in came] == [
        msgspec.structs.replace(part[0], attempt=1) for part in apart
    ]


@pytest.mark.parametrize("sql", [*backlog._TAKE[:2], *backlog._LIST[:2]])
async def test_claiming_and_peeking_do_not_sort_the_backlog(backend, sql):
    values = [1, 1, 1.0, "[1]", 0, 9, 5][-sql.count("?") :]
    plan = await backend._read(lambda d: d.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
    assert not any("TEMP B-TREE" in str(step) or "SCAN messages" in str(step) for step in plan), plan


async def test_new_group_may_begin_in_the_middle(backend):
    await backend.append([Message(str(n), KEY, b"%d" % n, published_at=1000.0 + n) for n in range(10)])
    for start, expected in ((0, 10), (1004.0, 6), (1004.5, 5), (9999.0, 0), (float("inf"), 0)):
        handle = await backend.subscribe(KEY, f"from-{start:.0f}-{expected}", start=start)
        assert bodies(await drain(handle)) == [b"%d" % n for n in range(10 - expected, 10)]


async def test_dropped_subscription_in_use_is_created_again(backend):
    handle = await backend.subscribe(KEY, "g", start=float("inf"))
    waiting = asyncio.create_task(handle.fetch(10, 2 * HANG))
    await backend.publish(KEY, 1)
    assert bodies(await waiting) == [b"1"]
    waiting = asyncio.create_task(handle.fetch(10, 2 * HANG))
    await asyncio.sleep(0.02)
    assert await backend.drop(KEY, "g")
    await backend.publish(KEY, 2)
    assert bodies(await waiting) == [b"2"]


async def test_only_the_last_holder_settles_after_the_clock_jumps(backend, monkeypatch):
    first, second = await backend.subscribe(KEY, "g"), await backend.subscribe(KEY, "g")
    await backend.publish(KEY, 1)
    (old,) = await first.fetch(1, 1)
    now = lease.time.time
    monkeypatch.setattr(lease, "time", SimpleNamespace(time=lambda: now() + 3600))
    (new,) = await second.fetch(1, 1)
    assert await first.settle([(old, ACKED)]) == [old]
    assert not await second.settle([(new, ACKED)])


async def test_trim_skips_keys_without_messages(backend, monkeypatch):
    monkeypatch.setattr(retention, "PAGES", 5)
    monkeypatch.setattr("abe_router.backends.sqlite.backend._PAGES", 2)
    handle = await backend.subscribe("orders.#", "billing")

    async def settled(keys):
        await backend.append([new_message(f"orders.{key}", b"0") for key in keys])
        await drain(handle)

    await settled(range(100))
    while await backend.trim({}):
        pass
    await settled([100])
    assert await backend.trim({}) == 1
    await settled(range(200, 205))
    assert await backend.trim({}) == 5
