"""A server that is away for longer than the lease: what a living worker had handled runs no second time."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message
from abe_router.observe.events import Events
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.testing import RedisServer
from tests.limits import HANG

LEASE = 1.0


@pytest.mark.parametrize("order_by", [None, "/id"])
async def test_restart_of_the_server_longer_than_the_lease_doubles_nothing(tmp_path, order_by):
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    got, ended = Counter[int](), asyncio.Event()

    async def charge(payload: dict[str, int]) -> None:
        got[payload["id"]] += 1
        await ended.wait()

    with RedisServer(tmp_path, durable=True) as server:
        async with make_backend(server.url) as backend:
            router = Reconciler(backend, Events([]))
            route = Route(
                "orders.created", "g", handler_from(charge), concurrency=20, lease=LEASE, order_by=order_by
            )
            await router.apply(RouteTable(routes=(route,), revision="1"))
            await backend.append([new_message("orders.created", encode({"id": n})) for n in range(20)])
            async with asyncio.timeout(HANG):
                while len(got) < 20:
                    await asyncio.sleep(0.01)
            server.kill()
            await asyncio.sleep(LEASE / 2)
            ended.set()
            await asyncio.sleep(3 * LEASE)
            server.start()
            async with asyncio.timeout(HANG):
                while not router.consumers[route.name].connected:
                    await asyncio.sleep(0.05)
                while any(s.ready + s.in_flight for s in await backend.status()):
                    await asyncio.sleep(0.05)
            await router.stop()
    assert set(got.values()) == {1}
