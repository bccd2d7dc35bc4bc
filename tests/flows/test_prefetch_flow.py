"""A consumer reads ahead by the time of its own handlers, however busy the event loop is."""

from __future__ import annotations

import asyncio
import time

from abe_router.consumer import consumer, prefetch
from abe_router.consumer.prefetch import FIRST_DEPTH, Prefetch
from abe_router.observe.events import Handled
from tests.limits import HANG

from .conftest import Running, make_route

#: For how long other routes keep the event loop, and how long handlers may take that keep up, in seconds.
BUSY, KEEPS_UP = 0.6, 0.5


class BusyLoop(Prefetch):
    """Keeps the event loop busy after a full fetch, before its handlers start, as other routes would."""

    def fetched(self, now, *, full):
        super().fetched(now, full=full)
        if full:
            asyncio.get_running_loop().call_soon(time.sleep, BUSY)


async def test_wait_for_the_event_loop_is_not_counted_as_handling(running: Running, monkeypatch):
    monkeypatch.setattr(consumer, "Prefetch", BusyLoop)
    monkeypatch.setattr(prefetch, "KEEPS_UP", KEEPS_UP)
    monkeypatch.setattr(prefetch, "QUICK_ROUND", HANG)

    async def charge(payload):
        pass

    await running.publish("orders.created", *range(4))
    await running.route(make_route(charge, concurrency=4))
    await running.log.wait_for(Handled, 4)
    (it,) = running.router.consumers.values()
    assert it._prefetch.depth >= FIRST_DEPTH
