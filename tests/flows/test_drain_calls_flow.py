"""What a message of a backlog costs, in calls of Python functions: these do not depend on the machine."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.observe.events import Events
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.testing import RedisServer

from .conftest import make_route, within

PACKAGE = str(Path(sys.modules["abe_router"].__file__ or "").parent)
BEGIN, END = 1_000, 5_000


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield make_backend(server.url)


async def test_a_message_of_a_backlog_costs_four_calls_and_the_rest_is_done_for_batches(backend: Backend):
    calls, handled, done = Counter[str](), 0, asyncio.Event()

    def count(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            calls[frame.f_code.co_qualname] += 1

    async def charge(payload):
        nonlocal handled
        handled += 1
        if handled == BEGIN:
            sys.setprofile(count)
        elif handled == END:
            sys.setprofile(None)
            done.set()

    for _ in range(END // 500):
        await asyncio.gather(*(backend.publish("orders.created", {"id": n}) for n in range(500)))
    router = Reconciler(backend, Events())
    try:
        await router.apply(RouteTable(routes=(make_route(charge),), revision="1"))
        async with within():
            await done.wait()
    finally:
        sys.setprofile(None)
        await router.stop(drain=0)
        await backend.close()
    often = {name: number for name, number in calls.items() if number > (END - BEGIN) / 4}
    assert calls.total() < 5 * (END - BEGIN), often
    assert often.keys() == {"Attempts.start", "Filter.check", "decode", "Slot.begin"}
