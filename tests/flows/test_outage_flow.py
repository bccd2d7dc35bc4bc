"""An outage of the backend is reported once by each route."""

from __future__ import annotations

import asyncio

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.observe.events import BackendBack, BackendLost, Event, Events
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

from .conftest import EventLog, make_route


class UnavailableBackend(MemoryBackend):
    """Cannot be reached until `back` is set."""

    def __init__(self):
        super().__init__()
        self.back, self.tries = asyncio.Event(), asyncio.Semaphore(0)

    async def subscribe(self, *args, **options):
        if not self.back.is_set():
            self.tries.release()
            raise BackendUnavailable("no answer")
        return await super().subscribe(*args, **options)


async def test_each_route_reports_an_outage_once():
    async def charge(payload):
        """Take it."""

    backend, log = UnavailableBackend(), EventLog()
    router = Reconciler(backend, Events([((Event,), log)]))
    routes = tuple(make_route(charge, key=f"orders.k{n}") for n in range(5))
    await router.apply(RouteTable(routes=routes))
    async with asyncio.timeout(5):
        for _ in range(5 * 3):
            await backend.tries.acquire()
    backend.back.set()
    await log.wait_for(BackendBack, 5)
    assert sorted(event.route for event in log.of(BackendLost)) == [route.name for route in routes]
    await router.stop(0)
