"""A running consumer or router on the memory backend, with its events at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from abe_router.routing.policies import RetryPolicy

from abe_router.backends.memory import MemoryBackend
from abe_router.observe.events import Event, Events
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

#: No wait between attempts, so that a test takes no longer than its work.
AT_ONCE = RetryPolicy(attempts=3, initial=0.0, jitter=False)


class Log:
    """The events so far, and a way to wait for one."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._news.set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def wait_for(self, kind: type[Event], count: int = 1) -> list[Any]:
        """Wait until there are `count` events of the kind, at most five seconds."""
        async with asyncio.timeout(5):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)


class Running:
    """A router on the memory backend."""

    def __init__(self) -> None:
        self.backend = MemoryBackend()
        self.log = Log()
        self.router = Reconciler(self.backend, Events([((Event,), self.log)]))

    async def route(self, *routes: Route) -> Any:
        return await self.router.apply(RouteTable(routes=routes, revision=str(hash(routes))))

    async def publish(self, key: str, *payloads: Any) -> None:
        for payload in payloads:
            await self.backend.publish(key, payload)


def make_route(
    function: Callable[..., Any], key: str = "orders.created", group: str = "billing", **options: Any
) -> Route:
    return Route(key=key, group=group, handler=handler_from(function), **{"retry": AT_ONCE, **options})


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    run = Running()
    yield run
    await run.router.stop(drain=0)
    await run.backend.close()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    async with asyncio.timeout(seconds):
        yield
