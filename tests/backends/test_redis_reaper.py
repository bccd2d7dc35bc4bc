"""The reaper of the Redis provider meets each due time, on every event loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from abe_router.backends.redis.names import Names
from abe_router.backends.redis.reaper import Reaper
from abe_router.backends.redis.stream_state import PendingReason, PendingWork, StreamState
from tests.limits import HANG

uvloop = pytest.importorskip("uvloop")


def state(pending: PendingWork, lease: float = 30.0) -> StreamState:
    return StreamState(Names(""), "orders", "billing", "me", lease, "0", pending)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_time_within_the_millisecond_may_be_expected_again(loop_factory):
    async def expect_again() -> PendingWork:
        pending = PendingWork(lambda: None)
        stream, reaper = state(pending), Reaper(None, None)
        reaper.add(stream)
        for seconds in (0.0001, 0.01, 0.00005):
            reaper.expect(stream, seconds)
        await asyncio.sleep(0.005)
        return pending

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(expect_again()).has(PendingReason.CLAIMABLE)


async def test_a_stream_with_a_shorter_lease_is_checked_at_once(monkeypatch):
    reaper, checked = Reaper(None, SimpleNamespace(up=True)), asyncio.Event()

    async def check():
        checked.set()

    monkeypatch.setattr(reaper, "check", check)
    monkeypatch.setattr("abe_router.backends.redis.reaper.INTERVAL", 20.0)
    running = asyncio.create_task(reaper.run())
    for lease in (60.0, 0.1):
        await asyncio.sleep(0.01)
        assert not checked.is_set()
        reaper.add(state(PendingWork(lambda: None), lease))
    async with asyncio.timeout(HANG):
        await checked.wait()
    running.cancel()
