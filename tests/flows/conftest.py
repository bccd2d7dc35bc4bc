"""A running router on the memory backend, and a record of its events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from abe_router.backend import Subscription
from abe_router.backends.memory import MemoryBackend
from abe_router.observe.events import Event, Events
from abe_router.routing.handler import handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.testing import RedisServer
from tests.limits import HANG

#: No wait between attempts, so that a test takes only as long as its work.
AT_ONCE = RetryPolicy(attempts=3, initial=0.0, jitter=False)


class EventLog:
    """Records events, and waits for them."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._added = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self._added.set()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def wait_for(self, kind: type[Event], count: int = 1) -> list[Any]:
        """Return the events of a kind once there are `count`; wait at most HANG seconds."""
        async with asyncio.timeout(HANG):
            while len(self.of(kind)) < count:
                self._added.clear()
                await self._added.wait()
        return self.of(kind)


class PatchedBackend(MemoryBackend):
    """A memory backend that calls `patch` with each subscription it makes, to replace some of its methods."""

    def __init__(self, patch: Callable[[Any], None]) -> None:
        super().__init__()
        self._patch = patch

    async def subscribe(self, *args: Any, **options: Any) -> Subscription:
        subscription = await super().subscribe(*args, **options)
        self._patch(subscription)
        return subscription

    async def subscribe_exclusive(self, *args: Any, **options: Any) -> Any:
        subscription = await super().subscribe_exclusive(*args, **options)
        self._patch(subscription)
        return subscription


class Running:
    """A router that runs on a memory backend."""

    def __init__(self, backend: MemoryBackend | None = None) -> None:
        self.backend = backend or MemoryBackend()
        self.log = EventLog()
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
async def within() -> AsyncIterator[None]:
    """Guard what is inside against a hang."""
    async with asyncio.timeout(HANG):
        yield


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of an empty backend that processes share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/orders.db"
    elif not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    else:
        with RedisServer(tmp_path) as server:
            yield server.url
