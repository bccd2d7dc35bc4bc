"""The stream of states: complete at first, then what has changed, computed once for all clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from abe_router.backends import make_backend
from abe_router.errors import BackendUnavailable
from abe_router.http import events as module
from abe_router.http.access import Caller, Role
from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.routing.table import RouteTable

from .events import watching
from .running import serving

CALLERS = {
    "viewer": Caller("viewer", frozenset({Role.VIEWER})),
    "shop": Caller("shop", frozenset({Role.VIEWER}), ("shop.#",)),
    "publisher": Caller("publisher", frozenset({Role.PUBLISHER})),
}


class FixedCounters:
    """Counts that a test sets."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteCounts] = {}

    def counts(self) -> Mapping[str, RouteCounts]:
        return dict(self.routes)

    def process_counts(self) -> ProcessCounts:
        return ProcessCounts()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.05)


def counted(handled: int) -> RouteCounts:
    return RouteCounts(since=1.0, outcomes={"handled": {"": handled}})


async def test_first_event_is_complete_and_later_ones_have_what_changed() -> None:
    async with serving(RouteTable(), make_backend("memory://"), CALLERS) as api:
        counters = api.source.counters = FixedCounters()
        counters.routes = {"a/x": counted(1), "b/x": counted(1)}
        subscription = await api.source.backend.subscribe("a", "x")
        async with watching(api, "/v1/events", token="viewer") as events:
            first = await events.next()
            assert first is not None
            assert first.name == "state"
            assert first.data["complete"]
            assert set(first.data["routes"]) == {"a/x", "b/x"}
            assert first.data["routes"]["a/x"]["state"]["ready"] == 0
            assert first.data["readiness"]["started"]
            counters.routes = {"a/x": counted(5)}
            while not (event := await events.next()) or not event.data.get("routes"):
                pass
        await subscription.close()
    assert "complete" not in event.data
    assert event.data["routes"]["a/x"]["counts"]["outcomes"] == {"handled": {"": 5}}
    assert (set(event.data["routes"]), event.data["removed"]) == ({"a/x"}, ["b/x"])


async def test_caller_sees_the_routes_of_its_keys() -> None:
    async with serving(RouteTable(), make_backend("memory://"), CALLERS) as api:
        counters = api.source.counters = FixedCounters()
        counters.routes = {"shop.paid/x": counted(1), "bank.paid/x": counted(1)}
        async with watching(api, "/v1/events", token="shop") as events:
            event = await events.next()
        async with watching(api, "/v1/events", token="publisher") as refused:
            assert refused.response.status_code == 403
    assert event is not None
    assert set(event.data["routes"]) == {"shop.paid/x"}


async def test_twenty_clients_cost_as_much_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(RouteTable(), make_backend("memory://"), CALLERS) as api:
        reads = []
        read = module.StateFeed._read

        async def noted(feed: Any) -> Any:
            reads.append(feed)
            return await read(feed)

        monkeypatch.setattr(module.StateFeed, "_read", noted)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(watching(api, "/v1/events")) for _ in range(20)]
            late = await clients[-1].next()
            for _ in range(3):
                await clients[0].next()
            assert len(set(reads)) == 1
        assert late is not None
        assert late.data["complete"]
        while api.site.streams.open:
            await asyncio.sleep(0.005)
        number = len(reads)
        await asyncio.sleep(0.2)
        assert len(reads) == number


async def test_unreachable_backend_is_said_and_the_counts_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> Any:
        raise BackendUnavailable("cannot reach redis://ada:secret@host")

    async with serving(RouteTable(), make_backend("memory://"), CALLERS) as api:
        counters = api.source.counters = FixedCounters()
        counters.routes = {"a/x": counted(1)}
        monkeypatch.setattr(api.source.backend, "status", fail)
        async with watching(api, "/v1/events") as events:
            event = await events.next()
    assert event is not None
    assert event.data["backend"] == "cannot reach redis://***@host"
    assert event.data["routes"]["a/x"]["counts"]["outcomes"] == {"handled": {"": 1}}


async def test_counts_are_left_out_on_request() -> None:
    async with serving(RouteTable(), make_backend("memory://"), CALLERS) as api:
        counters = api.source.counters = FixedCounters()
        counters.routes = {"a/x": counted(1)}
        async with watching(api, "/v1/events?counts=no", token="viewer") as events:
            first = await events.next()
            assert first is not None
            assert first.data["routes"] == {"a/x": {"figures": {}}}
