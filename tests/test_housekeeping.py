"""The backend stays small while a router runs."""

from __future__ import annotations

import asyncio

from abe_router.backend import ACKED
from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.housekeeping import Housekeeping


class Trimmed(MemoryBackend):
    """Notes with what it was trimmed, and fails the first time."""

    def __init__(self):
        super().__init__()
        self.asked = asyncio.Queue()
        self.failing = [BackendUnavailable("away"), RuntimeError("odd")]

    async def trim(self, retain):
        self.asked.put_nowait(dict(retain))
        if self.failing:
            raise self.failing.pop()
        return await super().trim(retain)


async def test_it_trims_again_and_again_whatever_the_backend_says():
    backend = Trimmed()
    keeping = Housekeeping(backend, first=0.0, every=0.001)
    keeping.follow({"orders.created": 60.0})
    async with asyncio.timeout(5):
        assert [await backend.asked.get() for _ in range(5)] == [{"orders.created": 60.0}] * 5
    await keeping.stop()


async def test_it_follows_an_edit_and_ends_when_told():
    backend = Trimmed()
    keeping = Housekeeping(backend, first=0.0, every=0.001)
    keeping.follow({})
    async with asyncio.timeout(5):
        assert await backend.asked.get() == {}
        keeping.follow({"#": 1.0})
        while await backend.asked.get() != {"#": 1.0}:
            pass
    await keeping.stop()
    await keeping.stop()
    assert len(asyncio.all_tasks()) == 1


async def test_what_is_settled_is_removed_until_nothing_is_left(monkeypatch):
    monkeypatch.setattr("abe_router.backends.memory.log.LOOKED_AT", 10)
    backend = MemoryBackend()
    handle = await backend.subscribe("orders.created", "billing")
    for number in range(100):
        await backend.publish("orders.created", number)
    await handle.settle([(d, ACKED) for d in await handle.fetch(100, 1.0)])
    keeping = Housekeeping(backend, first=0.0)
    keeping.follow({})
    async with asyncio.timeout(5):
        while backend._log._kept:
            await asyncio.sleep(0)
    await keeping.stop()
