"""Routers say how they are, and what nobody serves any more."""

from __future__ import annotations

import asyncio
import sys

import pytest

from abe_router.backends import make_backend
from abe_router.embed import Router
from abe_router.event import LeftBehind
from abe_router.presence import decode_worker

ROUTES = """\
backend: {backend}
routes:
  orders.created: {{consumers: {{billing: presence_handlers:handle}}}}
"""


@pytest.fixture
def backend_url(tmp_path):
    return f"sqlite:///{tmp_path}/shop.db"


@pytest.fixture
def routes(tmp_path, monkeypatch, backend_url):
    monkeypatch.setattr("abe_router.presence.EVERY", 0.05)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "presence_handlers.py").write_text("def handle(order): pass\n")
    (tmp_path / "routes.yaml").write_text(ROUTES.format(backend=backend_url))
    yield tmp_path / "routes.yaml"
    sys.modules.pop("presence_handlers", None)


class Left:
    """A listener that takes what is left behind."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.listener = ((LeftBehind,), self.told.put_nowait)

    async def next(self):
        async with asyncio.timeout(5):
            return await self.told.get()


async def workers(backend):
    return [decode_worker(state) for state in (await backend.announcements()).values()]


async def leave_behind(backend, group, count=3):
    """Subscribe a group, and publish what it then holds."""
    await (await backend.subscribe("orders.created", group)).close()
    for number in range(count):
        await backend.publish("orders.created", number)


async def test_an_embedded_router_says_how_it_is_until_it_ends(routes, backend_url):
    async with make_backend(backend_url) as backend:
        async with Router.from_file(routes) as router, asyncio.timeout(5):
            while not (there := await workers(backend)) or there[0].receipt is None:
                await asyncio.sleep(0.01)
            (worker,) = there
            assert worker.table == router.table.digest
            assert set(worker.routes) == {"orders.created/billing"}
            assert worker.receipt.added == ("orders.created/billing",)
        assert await workers(backend) == []


async def test_one_that_only_publishes_is_no_worker(routes, backend_url):
    async with make_backend(backend_url) as backend, Router.from_file(routes, consume=False) as router:
        await router.publish("orders.created", 1)
        assert await workers(backend) == []


async def test_a_rejected_edit_is_told_until_it_is_mended(routes, backend_url):
    async with make_backend(backend_url) as backend, Router.from_file(routes), asyncio.timeout(10):
        good = routes.read_text()
        routes.write_text(good + "    timeoot: 3s\n")
        while not any(worker.rejected for worker in await workers(backend)):
            await asyncio.sleep(0.01)
        (rejected,) = [worker.rejected for worker in await workers(backend)]
        assert (rejected[0].path, rejected[0].line) == (str(routes), 4)
        routes.write_text(good)
        while any(worker.rejected for worker in await workers(backend)):
            await asyncio.sleep(0.01)


async def test_what_nobody_serves_is_told_at_the_start_and_when_it_leaves_the_file(routes, backend_url):
    left = Left()
    async with make_backend(backend_url) as backend:
        await leave_behind(backend, "former")
        async with Router.from_file(routes, listeners=[left.listener]):
            assert await left.next() == LeftBehind("orders.created/former", 3)
            routes.write_text(routes.read_text().replace("billing", "invoices"))
            assert (await left.next()).route == "orders.created/billing"
        assert left.told.empty()


async def test_what_another_router_serves_is_not_left_behind(routes, backend_url, tmp_path):
    left, other = Left(), tmp_path / "other.yaml"
    other.write_text(routes.read_text().replace("billing", "audit"))
    async with make_backend(backend_url) as backend:
        await leave_behind(backend, "former")
        async with Router.from_file(other), Router.from_file(routes, listeners=[left.listener]):
            assert await left.next() == LeftBehind("orders.created/former", 3)
        assert left.told.empty()
