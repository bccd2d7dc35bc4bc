"""Heartbeats: routers report themselves to the backend, and report subscriptions that no router consumes."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.observe.events import OrphanedSubscription, Retried
from abe_router.router import Router
from abe_router.runtime.failures import MOST, MOST_ROUTES, RecentFailures, read_failures
from abe_router.runtime.heartbeat import WORKERS, decode_report, decode_reports
from tests.limits import HANG

HANDLERS = """\
import asyncio

began, go = asyncio.Event(), asyncio.Event()


def handle(order): pass


async def wait(order):
    began.set()
    await go.wait()


def fail(order): raise ValueError(f"order {order} has no customer")
"""
ROUTES = """\
backend: memory://
routes:
  orders.created: {consumers: {billing: heartbeat_handlers:handle}}
"""


@pytest.fixture
def backend(monkeypatch):
    """Return the backend of all routers of a test."""
    backend = MemoryBackend()
    monkeypatch.setattr("abe_router.router.make_backend", lambda url, prefix: backend)
    return backend


@pytest.fixture
def routes(tmp_path, monkeypatch, backend):
    monkeypatch.setattr("abe_router.runtime.heartbeat_reporter.EVERY", 0.05)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "heartbeat_handlers.py").write_text(HANDLERS)
    (tmp_path / "routes.yaml").write_text(ROUTES)
    yield tmp_path / "routes.yaml"
    sys.modules.pop("heartbeat_handlers", None)


class Orphans:
    """A listener that collects the reported orphaned subscriptions."""

    def __init__(self):
        self.reported = asyncio.Queue()
        self.listener = ((OrphanedSubscription,), self.reported.put_nowait)

    async def next(self):
        async with asyncio.timeout(HANG):
            return await self.reported.get()


async def reports(backend):
    return list(decode_reports(await backend.entries(WORKERS)).values())


async def leave_behind(backend, group, count=3):
    """Subscribe a group, and publish messages that it then holds."""
    await (await backend.subscribe("orders.created", group)).close()
    for number in range(count):
        await backend.publish("orders.created", number)


async def test_a_router_reports_itself_until_it_stops(routes, backend):
    async with Router.from_file(routes) as router, asyncio.timeout(HANG):
        while not (found := await reports(backend)) or found[0].reload is None:
            await asyncio.sleep(0.01)
        (report,) = found
        assert (report.pid, report.revision) == (os.getpid(), router.table.revision)
        assert set(report.routes) == {"orders.created/billing"}
        assert report.reload.added == ("orders.created/billing",)
    assert await reports(backend) == []


async def test_a_router_that_only_publishes_does_not_report_itself(routes, backend):
    async with Router.from_file(routes, consume=False) as router:
        await router.publish("orders.created", 1)
        assert await reports(backend) == []


async def test_a_backend_without_a_key_value_store_gets_no_reports(routes, backend, monkeypatch):
    features = type(backend.features)(key_value=False)
    monkeypatch.setattr(type(backend), "features", features)
    async with Router.from_file(routes) as router:
        await router.publish("orders.created", 1)
        await asyncio.sleep(0.1)
        assert await reports(backend) == []


async def test_the_diagnostics_of_a_rejected_edit_are_reported_until_it_is_fixed(routes, backend):
    async with Router.from_file(routes), asyncio.timeout(HANG):
        good = routes.read_text()
        routes.write_text(good + "    timeoot: 3s\n")
        while not any(report.rejected for report in await reports(backend)):
            await asyncio.sleep(0.01)
        (rejected,) = [report.rejected for report in await reports(backend)]
        assert (rejected[0].path, rejected[0].line, rejected[0].severity) == (str(routes), 4, "error")
        routes.write_text(good)
        while any(report.rejected for report in await reports(backend)):
            await asyncio.sleep(0.01)


async def test_a_path_that_is_not_utf8_is_escaped(routes, backend, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    odd = folder / "routes.yaml"
    odd.write_text(routes.read_text())
    async with Router.from_file(odd), asyncio.timeout(HANG):
        while not (found := await reports(backend)):
            await asyncio.sleep(0.01)
        assert found[0].path == rf"{tmp_path}/caf\udce9/routes.yaml"
        odd.write_text(odd.read_text() + "    timeoot: 3s\n")
        while not (found := await reports(backend))[0].rejected:
            await asyncio.sleep(0.01)
        assert found[0].rejected[0].path == found[0].path


DEEP = (
    b'{"host": "h", "pid": 1, "started_at": 1, "revision": "r", "x": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001
)


@pytest.mark.parametrize("value", [b"", b"{}", b"[1]", b'{"host": 1}', b"\xff"], ids=repr)
def test_a_report_that_cannot_be_read_is_none(value):
    assert decode_report(value) is None


def test_a_very_deep_report_is_read_or_is_none():
    """Some versions of Python allow such a depth."""
    report = decode_report(DEEP)
    assert report is None or report.host == "h"


@asynccontextmanager
async def draining(routes, backend):
    """Run a router whose edit removed a route that still drains; yield a function that ends the drain."""
    routes.write_text(routes.read_text().replace(":handle", ":wait"))
    async with Router.from_file(routes) as router, asyncio.timeout(HANG):
        handlers = sys.modules["heartbeat_handlers"]
        await router.publish("orders.created", 1)
        await handlers.began.wait()
        routes.write_text(routes.read_text().replace("billing", "invoices"))
        while "orders.created/invoices" not in router.table.by_name:
            await asyncio.sleep(0.01)
        yield handlers.go.set


async def test_the_later_of_two_overlapping_edits_is_reported_last(routes, backend):
    async with draining(routes, backend) as end:
        routes.write_text(routes.read_text().replace("}}", ", audit: heartbeat_handlers:handle}}"))
        while (report := (await reports(backend))[0]).reload.added != ("orders.created/audit",):
            await asyncio.sleep(0.01)
        end()
        while "orders.created/billing" in report.routes:
            await asyncio.sleep(0.01)
            (report,) = await reports(backend)
        assert report.reload.added == ("orders.created/audit",)


async def test_a_rejected_edit_is_reported_while_an_earlier_one_drains(routes, backend):
    async with draining(routes, backend) as end:
        routes.write_text(routes.read_text() + "    timeoot: 3s\n")
        while not (report := (await reports(backend))[0]).rejected:
            await asyncio.sleep(0.01)
        end()
        while report.reload.removed != ("orders.created/billing",):
            await asyncio.sleep(0.01)
            (report,) = await reports(backend)
        assert report.rejected[0].line == 4


async def test_orphaned_subscriptions_are_reported_at_the_start_and_after_an_edit(routes, backend):
    orphans = Orphans()
    await leave_behind(backend, "former")
    async with Router.from_file(routes, listeners=[orphans.listener]):
        assert await orphans.next() == OrphanedSubscription("orders.created/former", 3)
        routes.write_text(routes.read_text().replace("billing", "invoices"))
        assert (await orphans.next()).route == "orders.created/billing"
    assert orphans.reported.empty()


async def test_a_subscription_that_another_router_consumes_is_not_orphaned(routes, backend, tmp_path):
    orphans, other = Orphans(), tmp_path / "other.yaml"
    other.write_text(routes.read_text().replace("billing", "audit"))
    await leave_behind(backend, "former")
    async with Router.from_file(other), Router.from_file(routes, listeners=[orphans.listener]):
        assert await orphans.next() == OrphanedSubscription("orders.created/former", 3)
    assert orphans.reported.empty()


async def test_worker_stores_the_failures_whose_messages_wait_for_a_retry(routes, backend):
    options = "{handler: heartbeat_handlers:fail, retry: {initial: 1h, max: 1h, jitter: false}}"
    routes.write_text(ROUTES.replace("heartbeat_handlers:handle", options))
    async with Router.from_file(routes) as router:
        await router.publish("orders.created", 7, headers={})
        async with asyncio.timeout(HANG):
            while not (found := await read_failures(backend)):
                await asyncio.sleep(0.01)
        (failed,) = found["orders.created/billing"]
        assert (failed.attempt, failed.delay, failed.kind) == (1, 3600.0, "failed")
        assert failed.error == "ValueError: order 7 has no customer"
        assert "in fail" in failed.traceback
        await router.publish("orders.created", 8)
        async with asyncio.timeout(HANG):
            while len((await read_failures(backend))["orders.created/billing"]) < 2:
                await asyncio.sleep(0.01)
        assert not any(b"customer" in each.value for each in (await backend.entries(WORKERS)).values())


def test_worker_remembers_a_bounded_number_of_failures():
    recent = RecentFailures()
    assert recent.take() is None
    for route in range(2 * MOST_ROUTES):
        for attempt in range(2 * MOST):
            recent.on_event(
                Retried(f"r{route}/g", "id", "k", attempt, 1.0, "failed", "e" * 9_000, "t" * 99_000)
            )
    stored = recent.take()
    assert stored is not None
    assert len(stored) < MOST_ROUTES * MOST * 5_000
    assert b"r0/g" not in stored
    assert recent.take() is None
