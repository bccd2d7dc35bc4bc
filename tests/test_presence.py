"""Routers say how they are, and what nobody serves any more."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from abe_router.application import Router
from abe_router.backends import make_backend
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.observe.events import OrphanedSubscription
from abe_router.process.channel import Outdated, Rejected, Running, decode_word, encode_word
from abe_router.runtime.heartbeat import decode_worker

HANDLERS = """\
import asyncio

begun, done = asyncio.Event(), asyncio.Event()


def handle(order): pass


async def wait(order):
    begun.set()
    await done.wait()
"""
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
    monkeypatch.setattr("abe_router.runtime.heartbeat.EVERY", 0.05)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "presence_handlers.py").write_text(HANDLERS)
    (tmp_path / "routes.yaml").write_text(ROUTES.format(backend=backend_url))
    yield tmp_path / "routes.yaml"
    sys.modules.pop("presence_handlers", None)


class Left:
    """A listener that takes what is left behind."""

    def __init__(self):
        self.told = asyncio.Queue()
        self.listener = ((OrphanedSubscription,), self.told.put_nowait)

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
            assert worker.revision == router.table.revision
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


async def test_a_folder_whose_name_is_not_utf8_is_told_escaped(routes, backend_url, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    odd = folder / "routes.yaml"
    odd.write_text(routes.read_text())
    async with make_backend(backend_url) as backend, Router.from_file(odd), asyncio.timeout(10):
        while not (there := await workers(backend)):
            await asyncio.sleep(0.01)
        assert there[0].path == rf"{tmp_path}/caf\udce9/routes.yaml"
        odd.write_text(odd.read_text() + "    timeoot: 3s\n")
        while not (there := await workers(backend))[0].rejected:
            await asyncio.sleep(0.01)
        assert there[0].rejected[0].path == there[0].path


def test_a_supervisor_is_told_names_that_are_not_utf8_as_they_are():
    path = Path(os.fsdecode(b"/caf\xe9/routes.yaml"))
    fault = Diagnostic(path, 1, 2, "R001", Severity.ERROR, "no `\ud800` here")
    for word in (Running(frozenset([path, Path("/x.py")])), Rejected((fault,)), Outdated("the code", path)):
        line = encode_word(word)
        assert decode_word(line) == word
        assert line.index(b"\n") == len(line) - 1


@asynccontextmanager
async def draining(routes, backend_url):
    """Run a router that took a route out and waits for what it has in hand; yield how to end that."""
    routes.write_text(routes.read_text().replace(":handle", ":wait"))
    async with make_backend(backend_url) as backend, Router.from_file(routes) as router, asyncio.timeout(10):
        handlers = sys.modules["presence_handlers"]
        await router.publish("orders.created", 1)
        await handlers.begun.wait()
        routes.write_text(routes.read_text().replace("billing", "invoices"))
        while "orders.created/invoices" not in router.table.by_name:
            await asyncio.sleep(0.01)
        yield backend, handlers.done.set


async def test_of_two_edits_at_a_time_the_later_is_the_last_though_it_is_done_with_first(routes, backend_url):
    async with draining(routes, backend_url) as (backend, end):
        routes.write_text(routes.read_text().replace("}}", ", audit: presence_handlers:handle}}"))
        while (worker := (await workers(backend))[0]).receipt.added != ("orders.created/audit",):
            await asyncio.sleep(0.01)
        end()
        while "orders.created/billing" in worker.routes:
            (worker,) = await workers(backend)
        assert worker.receipt.added == ("orders.created/audit",)


async def test_a_rejected_edit_is_told_though_the_one_before_it_is_done_with_only_then(routes, backend_url):
    async with draining(routes, backend_url) as (backend, end):
        routes.write_text(routes.read_text() + "    timeoot: 3s\n")
        while not (worker := (await workers(backend))[0]).rejected:
            await asyncio.sleep(0.01)
        end()
        while worker.receipt.removed != ("orders.created/billing",):
            (worker,) = await workers(backend)
        assert worker.rejected[0].line == 4


async def test_what_nobody_serves_is_told_at_the_start_and_when_it_leaves_the_file(routes, backend_url):
    left = Left()
    async with make_backend(backend_url) as backend:
        await leave_behind(backend, "former")
        async with Router.from_file(routes, listeners=[left.listener]):
            assert await left.next() == OrphanedSubscription("orders.created/former", 3)
            routes.write_text(routes.read_text().replace("billing", "invoices"))
            assert (await left.next()).route == "orders.created/billing"
        assert left.told.empty()


async def test_what_another_router_serves_is_not_left_behind(routes, backend_url, tmp_path):
    left, other = Left(), tmp_path / "other.yaml"
    other.write_text(routes.read_text().replace("billing", "audit"))
    async with make_backend(backend_url) as backend:
        await leave_behind(backend, "former")
        async with Router.from_file(other), Router.from_file(routes, listeners=[left.listener]):
            assert await left.next() == OrphanedSubscription("orders.created/former", 3)
        assert left.told.empty()
