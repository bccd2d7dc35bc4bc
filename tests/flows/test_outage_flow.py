"""An outage of the backend is reported once by each route."""

from __future__ import annotations

import asyncio
import time

from abe_router.backends.memory import MemoryBackend
from abe_router.consumer.backend_calls import BackendCalls, Recovery
from abe_router.consumer.shutdown import Shutdown
from abe_router.errors import BackendUnavailable
from abe_router.observe.events import BackendBack, BackendLost, Event, Events
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from tests.limits import HANG

from .conftest import EventLog, PatchedBackend, Running, make_route


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
    async with asyncio.timeout(HANG):
        for _ in range(5 * 3):
            await backend.tries.acquire()
    backend.back.set()
    await log.wait_for(BackendBack, 5)
    assert sorted(event.route for event in log.of(BackendLost)) == [route.name for route in routes]
    await router.stop(0)


async def test_interrupted_fetch_during_an_outage_does_not_report_its_end():
    """The settler interrupts the fetch while it meets errors."""
    up, failed, answers = True, 0, asyncio.Event()

    def patch(subscription):
        fetch, settle = subscription.fetch, subscription.settle

        async def fetch_if_up(limit, wait):
            nonlocal failed
            if subscription._interrupted:  # as on Redis: nothing is asked
                return await fetch(limit, wait)
            if not up:
                failed += 1
                if failed == 5:
                    answers.set()
                raise BackendUnavailable("no answer")
            return await fetch(limit, wait)

        async def settle_if_up(settlements):
            if not up:
                raise BackendUnavailable("no answer")
            return await settle(settlements)

        subscription.fetch, subscription.settle = fetch_if_up, settle_if_up

    async def charge(payload):
        nonlocal up
        up = False

    running = Running(PatchedBackend(patch))
    await running.route(make_route(charge))
    await running.publish("orders.created", 1)
    async with asyncio.timeout(HANG):
        await answers.wait()
        assert not running.log.of(BackendBack)
        assert len(running.log.of(BackendLost)) == 1
        up = True
        await running.log.wait_for(BackendBack)
    assert len(running.log.of(BackendBack)) == 1
    await running.router.stop(0)


async def test_outage_is_as_long_as_since_its_first_error_whichever_call_ends_it():
    async def fail():
        raise BackendUnavailable("no answer")

    async def answer():
        return "answer"

    log = EventLog()
    calls = BackendCalls("k/g", Events([((Event,), log)]), Shutdown(1.0), Recovery())
    began = time.monotonic()
    interrupted = asyncio.create_task(calls.repeat(fail))
    await calls.tried.wait()
    interrupted.cancel()
    assert await calls.repeat(answer) == "answer"
    (back,) = log.of(BackendBack)
    assert 0 <= back.seconds <= time.monotonic() - began
