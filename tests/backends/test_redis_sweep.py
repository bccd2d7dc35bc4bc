"""What the Redis provider expects, it notices on the dot, on every event loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from abe_router.backends.redis.names import Names
from abe_router.backends.redis.source import Agenda, Source
from abe_router.backends.redis.sweep import INTERVAL, Sweep

uvloop = pytest.importorskip("uvloop")


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_is_expected_within_the_millisecond_may_be_expected_once_more(loop_factory):
    async def expect_twice() -> Agenda:
        agenda = Agenda(lambda: None)
        source = Source(Names(""), "orders", "billing", "me", 30.0, "0", agenda)
        sweep = Sweep(None, None)
        sweep.add(source)
        sweep.expect(source, 0.0001)
        sweep.expect(source, 0.01)
        sweep.expect(source, 0.00005)
        await asyncio.sleep(0.005)
        return agenda

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(expect_twice()).claim


async def test_a_shorter_lease_is_looked_after_at_once(monkeypatch):
    sweep, looked = Sweep(None, SimpleNamespace(up=True)), asyncio.Event()

    async def look():
        looked.set()

    monkeypatch.setattr(sweep, "look", look)
    running = asyncio.create_task(sweep.run())
    for lease in (30.0, 0.1):
        await asyncio.sleep(0.01)
        assert not looked.is_set()
        sweep.add(Source(Names(""), "orders", "billing", "me", lease, "0", Agenda(lambda: None)))
    async with asyncio.timeout(INTERVAL / 2):
        await looked.wait()
    running.cancel()
