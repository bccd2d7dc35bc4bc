"""Retention removes settled messages while a router runs."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import ACKED
from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.runtime.retention import EVERY, FIRST, PORTION, RetentionLoop
from tests.limits import HANG


class RecordingTrims(MemoryBackend):
    """Records the calls of trim, of which the first two fail."""

    def __init__(self):
        super().__init__()
        self.trims = asyncio.Queue()
        self.failing = [BackendUnavailable("away"), RuntimeError("odd")]

    async def trim(self, retain):
        self.trims.put_nowait(dict(retain))
        if self.failing:
            raise self.failing.pop()
        return await super().trim(retain)


async def test_it_keeps_trimming_after_errors_of_the_backend():
    backend = RecordingTrims()
    retention = RetentionLoop(backend, first=0.0, every=0.001)
    retention.follow({"orders.created": 60.0})
    async with asyncio.timeout(HANG):
        assert [await backend.trims.get() for _ in range(5)] == [{"orders.created": 60.0}] * 5
    await retention.stop()


async def test_it_uses_the_retention_of_the_last_edit_until_stopped():
    backend = RecordingTrims()
    retention = RetentionLoop(backend, first=0.0, every=0.001)
    retention.follow({})
    async with asyncio.timeout(HANG):
        assert await backend.trims.get() == {}
        retention.follow({"#": 1.0})
        while await backend.trims.get() != {"#": 1.0}:
            pass
    await retention.stop()
    await retention.stop()
    assert len(asyncio.all_tasks()) == 1


class Settling(MemoryBackend):
    """Removes at each trim what was settled since the last one, at a rate, by a clock that pauses advance."""

    def __init__(self, rate, *, backlog=0, most=50_000, takes=0.001):
        super().__init__()
        self.now, self.rate, self.takes, self.most = 0.0, rate, takes, most
        self.left, self.seen, self.rests, self.removed = float(backlog), 0.0, [], []

    async def trim(self, retain):
        self.left += (self.now - self.seen) * self.rate
        self.seen = self.now
        self.removed.append(min(int(self.left), self.most))
        self.left -= self.removed[-1]
        self.now += self.takes
        return self.removed[-1]

    async def rest(self, seconds):
        self.rests.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


async def run_for(backend, seconds):
    """Run retention for so many seconds by the backend's clock."""
    retention = RetentionLoop(backend, rest=backend.rest, clock=lambda: backend.now)
    retention.follow({})
    while backend.now < seconds:
        await asyncio.sleep(0)
    await retention.stop()


@pytest.mark.parametrize("rate", [0, 10, 300])
async def test_few_messages_are_removed_every_ten_seconds_and_not_more_often(rate):
    backend = Settling(rate)
    await run_for(backend, 1_000)
    assert backend.rests[0] == FIRST
    assert min(backend.rests[1:]) == EVERY


@pytest.mark.parametrize("rate", [2_000, 50_000, 500_000])
async def test_it_keeps_up_with_the_consumers_and_each_trim_stays_small(rate):
    backend = Settling(rate)
    await run_for(backend, 60)
    assert backend.left <= rate * FIRST
    assert all(abs(removed - PORTION) < PORTION / 2 for removed in backend.removed[-5:])
    assert sum(backend.rests) >= 60 / 2


async def test_an_old_backlog_is_removed_in_half_of_the_time():
    backend = Settling(0, backlog=1_000_000, most=10_000, takes=0.01)
    await run_for(backend, 8)
    assert backend.left == 0
    assert min(backend.rests) == pytest.approx(0.01)


async def test_the_first_trim_is_immediate_if_the_table_retains_messages():
    backend = Settling(0)
    retention = RetentionLoop(backend, rest=backend.rest, clock=lambda: backend.now)
    retention.follow({"orders.created": 60.0})
    await asyncio.sleep(0)
    assert backend.rests == [0.0]
    await retention.stop()


async def test_settled_messages_are_removed_until_none_is_left(monkeypatch):
    monkeypatch.setattr("abe_router.backends.memory.log.TRIM_BATCH", 10)
    backend = MemoryBackend()
    handle = await backend.subscribe("orders.created", "billing")
    for number in range(100):
        await backend.publish("orders.created", number)
    await handle.settle([(d, ACKED) for d in await handle.fetch(100, 1.0)])
    assert len(await backend.peek("#", None, limit=1_000)) == 100
    retention = RetentionLoop(backend, first=0.0, every=0.0)
    retention.follow({})
    async with asyncio.timeout(HANG):
        while await backend.peek("#", None, limit=1):
            await asyncio.sleep(0)
    await retention.stop()
