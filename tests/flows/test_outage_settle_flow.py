"""What handlers did during an outage is settled after it, and runs no second time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pytest

from abe_router.consumer import settler
from abe_router.errors import BackendUnavailable
from abe_router.observe.events import LeaseLost
from abe_router.routing.policies import Batch

from .conftest import PatchedBackend, Running, make_route, within

LEASE = 0.3
CALLS = ("fetch", "settle", "extend", "postpone")


class Server:
    """Is down or not for the calls of each subscription that it patches."""

    def __init__(self, names: Collection[str] = CALLS) -> None:
        self.down, self.names, self.refused = False, names, Counter[str]()

    def patch(self, subscription: Any) -> None:
        for name in CALLS:
            if hasattr(subscription, name):
                setattr(subscription, name, self._guard(name, getattr(subscription, name)))

    def _guard(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any) -> Any:
            if self.down and name in self.names:
                self.refused[name] += 1
                raise BackendUnavailable("no answer")
            result = await call(*args)
            if self.down and name == "fetch" and not result:
                raise BackendUnavailable("no answer")
            return result

        return guarded


@pytest.mark.parametrize(
    "options",
    [{}, {"batch": Batch(4, 0.01)}, {"order_by": "/id"}, {"rate": 1000.0}],
    ids=["plain", "batch", "ordered", "rate"],
)
async def test_outcomes_of_an_outage_longer_than_the_lease_are_settled_after_it(options):
    server, got, began = Server(), Counter[int](), asyncio.Semaphore(0)
    ended = asyncio.Event()
    running = Running(PatchedBackend(server.patch))

    async def charge(payload: Any) -> None:
        for each in payload if isinstance(payload, list) else [payload]:
            got[each["id"]] += 1
            began.release()
        await ended.wait()

    await running.route(make_route(charge, lease=LEASE, concurrency=20, **options))
    await running.publish("orders.created", *({"id": n} for n in range(20)))
    async with within():
        for _ in range(20):
            await began.acquire()
    server.down = True
    await asyncio.sleep(LEASE / 3)
    ended.set()
    await asyncio.sleep(4 * LEASE)
    server.down = False
    await running.publish("orders.created", {"id": 20})
    async with within():
        while any(s.ready + s.in_flight for s in await running.backend.status()) or len(got) < 21:
            await asyncio.sleep(0.01)
    assert server.refused["settle"] > 1
    assert set(got.values()) == {1}
    assert not running.log.of(LeaseLost)
    await running.router.stop()


async def test_handlers_that_outlast_an_outage_run_once():
    server, got, began = Server(), Counter[int](), asyncio.Semaphore(0)
    ended = asyncio.Event()
    running = Running(PatchedBackend(server.patch))

    async def charge(payload: int) -> None:
        got[payload] += 1
        began.release()
        await ended.wait()

    await running.route(make_route(charge, lease=LEASE, concurrency=40))
    await running.publish("orders.created", *range(20))
    async with within():
        for _ in range(20):
            await began.acquire()
    server.down = True
    await asyncio.sleep(4 * LEASE)
    server.down = False
    await asyncio.sleep(2 * LEASE)
    ended.set()
    async with within():
        while any(s.ready + s.in_flight for s in await running.backend.status()):
            await asyncio.sleep(0.01)
    assert set(got.values()) == {1}
    await running.router.stop()


async def test_settler_tries_again_as_soon_as_another_route_reaches_the_backend(monkeypatch):
    monkeypatch.setattr(settler, "LONGEST_WAIT", 1e9)  # so that only the other route can wake it
    monkeypatch.setattr(settler, "Backoff", lambda **_: _Hour())
    server, ended, began = Server({"settle"}), asyncio.Event(), asyncio.Event()
    running = Running(PatchedBackend(server.patch))

    async def charge(_: Any) -> None:
        began.set()
        await ended.wait()

    await running.route(make_route(charge, "a", lease=30.0), make_route(charge, "b", lease=30.0))
    await running.publish("a", 1)
    async with within():
        await began.wait()
    server.down = True
    ended.set()
    async with within():
        while not server.refused["settle"]:
            await asyncio.sleep(0.01)
    server.names = ("fetch",)
    async with within():
        while not server.refused["fetch"]:
            running.router.consumers["b/billing"]._in_flight.capacity.set()
            await running.publish("b", 1)
            await asyncio.sleep(0.01)
        server.down = False
        while any(s.in_flight for s in await running.backend.status()):
            await asyncio.sleep(0.01)
    await running.router.stop(0)


class _Hour:
    def next(self) -> float:
        return 3600.0


async def test_settler_gives_up_only_when_the_consumer_stops(monkeypatch):
    monkeypatch.setattr(settler, "SHUTDOWN_GRACE", 0.2)
    server, began = Server(), asyncio.Event()
    running = Running(PatchedBackend(server.patch))

    async def charge(_: Any) -> None:
        began.set()
        server.down = True

    await running.route(make_route(charge, lease=0.05))
    await running.publish("orders.created", 1)
    async with within():
        await began.wait()
        await asyncio.sleep(0.3)
        assert not running.log.of(LeaseLost)
        await running.router.stop()
    assert len(running.log.of(LeaseLost)) == 1
