"""Overrides that end: obeyed without a restart, over edits and restarts, by the backend's clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from abe_router.application import Application
from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.config.building.loader import Loader
from abe_router.edits import overrides as following
from abe_router.edits.overrides import OverrideFollower, limits_of
from abe_router.errors import BackendUnavailable
from abe_router.observe.events import Event, Events, Handled, OverrideBegan, OverrideEnded
from abe_router.operations import overrides
from abe_router.operations.audit import Author, acts
from abe_router.operations.errors import OperationRefused, UnknownRoute
from abe_router.operations.overrides import limit, pause, resume
from abe_router.operations.status import read_status
from abe_router.process.worker import Worker
from abe_router.router import Router
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import WORKERS, WorkerReport, decode_reports
from abe_router.runtime.override import OVERRIDES, Override, read_overrides
from abe_router.runtime.reconciler import Reconciler

from .flows import conftest
from .flows.conftest import EventLog, make_route, within

ADA = Author("ada@host", "command line")
ROUTE = "orders.created/billing"
url = conftest.url


async def note(payload):
    """Do nothing; the Handled event shows the call."""


TABLE = RouteTable(routes=(make_route(note), make_route(note, group="audit")), revision="1")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "EVERY", 0.02)
    monkeypatch.setattr(overrides, "LOOK_EVERY", 0.01)


class Clock:
    """The clock of a backend, which a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def running(backend: MemoryBackend, table: RouteTable = TABLE) -> AsyncIterator[EventLog]:
    """Run a worker on a backend that it leaves open."""
    log = EventLog()
    application = Application(table, backend, listeners=[((Event,), log)])
    before = len(await backend.entries(WORKERS))
    await application.start()
    async with within():
        while len(await backend.entries(WORKERS)) == before:
            await asyncio.sleep(0)
    log.application = application
    yield log
    await application.stop(0.0)


def handled(log: EventLog, route: str = ROUTE) -> int:
    return sum(event.route == route for event in log.of(Handled))


async def eventually(condition) -> None:
    async with within():
        while not condition():
            await asyncio.sleep(0.005)


async def test_workers_obey_before_pause_and_resume_return():
    backend = MemoryBackend()
    async with running(backend) as log, running(backend) as other:
        consumer = log.application.reconciler.consumers[ROUTE]
        result = await pause(TABLE, backend, ROUTE, author=ADA, why="gateway down")
        assert (len(result.obeyed), result.silent) == (2, ())
        await backend.publish("orders.created", 1)
        await eventually(
            lambda: handled(log, "orders.created/audit") + handled(other, "orders.created/audit")
        )
        assert handled(log) + handled(other) == 0
        result = await resume(TABLE, backend, ROUTE, author=ADA)
        assert [route.text for route in result.routes] == ["no longer paused"]
        await eventually(lambda: handled(log) + handled(other) == 1)
        assert log.application.reconciler.consumers[ROUTE] is consumer
        began, ended = *log.of(OverrideBegan), *log.of(OverrideEnded)
    assert began.override.startswith("paused until ")
    assert began.override.endswith(" by ada@host: gateway down")
    assert ended == OverrideEnded(ROUTE, "paused")
    assert [(act.action, act.target, act.why) for act in await acts(backend)] == [
        ("resume", ROUTE, ""),
        ("pause", ROUTE, "gateway down"),
    ]


async def test_worker_that_has_not_answered_is_named():
    backend = MemoryBackend()
    stuck = WorkerReport("elsewhere", 7, 0.0, "1")
    await backend.put(WORKERS, "stuck", msgspec.json.encode(stuck), ttl=60)
    async with running(backend):
        result = await pause(TABLE, backend, ROUTE, author=ADA, why="x", patience=0.5)
    assert result.silent == ("elsewhere:7",)
    assert len(result.obeyed) == 1
    assert (await acts(backend))[0].result.startswith("not obeyed yet by elsewhere:7; ")


async def test_pause_ends_while_all_workers_are_down():
    backend = MemoryBackend(clock=(clock := Clock()))
    async with running(backend):
        await pause(TABLE, backend, ROUTE, author=ADA, why="x", seconds=60)
    await backend.publish("orders.created", 1)
    clock.now += 61
    async with running(backend) as log:
        await eventually(lambda: handled(log) == 1)


class Slow(MemoryBackend):
    """A memory backend whose overrides take longer to read than a message to handle."""

    async def entries(self, bucket: str):
        if bucket == OVERRIDES:
            await asyncio.sleep(0.05)
        return await super().entries(bucket)


async def test_pause_holds_for_a_worker_that_joins_and_over_restarts():
    backend = Slow(clock=(clock := Clock()))
    await backend.subscribe("orders.created", "billing")
    await pause(TABLE, backend, ROUTE, author=ADA, why="x", seconds=60)
    await backend.publish("orders.created", 1)
    for _ in range(2):
        async with running(backend) as log:
            await eventually(lambda log=log: log.of(OverrideBegan))
            await asyncio.sleep(0.05)
            assert handled(log) == 0
    async with running(backend) as log:
        clock.now += 61
        await eventually(lambda: handled(log) == 1)


async def test_pause_holds_over_an_edit_that_removes_and_adds_the_route():
    backend = MemoryBackend()
    async with running(backend) as log:
        await pause(TABLE, backend, ROUTE, author=ADA, why="x")
        reconciler = log.application.reconciler
        await reconciler.apply(replace(TABLE, routes=TABLE.routes[1:], revision="2"))
        await backend.publish("orders.created", 1)
        await reconciler.apply(replace(TABLE, revision="3"))
        await eventually(lambda: handled(log, "orders.created/audit"))
        assert handled(log) == 0
        status = await read_status(TABLE, backend)
        assert [each.route for state in status.routes for each in state.overrides] == [ROUTE]


async def test_the_last_pause_counts_also_if_it_is_shorter():
    backend = MemoryBackend(clock=(clock := Clock()))
    async with running(backend) as log:
        await pause(TABLE, backend, ROUTE, author=ADA, why="long", seconds=10_000)
        await pause(TABLE, backend, ROUTE, author=ADA, why="short", seconds=60)
        assert [event.override.rpartition(": ")[2] for event in log.of(OverrideBegan)] == ["long", "short"]
        await backend.publish("orders.created", 1)
        clock.now += 61
        await eventually(lambda: handled(log) == 1)


async def test_limit_that_is_in_force_when_the_pause_ends_slows_the_backlog_down():
    backend = MemoryBackend(clock=(clock := Clock()))
    async with running(backend) as log:
        await limit(TABLE, backend, ROUTE, 0.001, author=ADA, why="slowly", seconds=10_000)
        await pause(TABLE, backend, ROUTE, author=ADA, why="x", seconds=60)
        for number in range(10):
            await backend.publish("orders.created", number)
        clock.now += 61
        await eventually(lambda: handled(log) == 1)
        await asyncio.sleep(0.05)
        assert handled(log) == 1
        await resume(TABLE, backend, ROUTE, author=ADA)
        await eventually(lambda: handled(log) == 10)


class Away(MemoryBackend):
    """A memory backend that can be away for readers of overrides."""

    away = False

    async def entries(self, bucket: str):
        if self.away and bucket == OVERRIDES:
            raise BackendUnavailable("away")
        return await super().entries(bucket)


def follower(backend: MemoryBackend) -> OverrideFollower:
    return OverrideFollower(backend, Reconciler(backend, Events()), Events(), changed=asyncio.Event())


async def put(backend: MemoryBackend, seconds: float) -> None:
    override = Override("pause", ROUTE, time.time(), seconds, "ada@host", "x")
    await backend.put(OVERRIDES, override.name, msgspec.json.encode(override), ttl=60)


async def test_worker_that_is_cut_off_ends_a_pause_by_its_own_clock():
    backend = Away()
    worker = follower(backend)
    await worker.refresh()
    await put(backend, 0.2)
    await worker.refresh()
    backend.away = True
    await worker.refresh()
    assert len(worker.overrides) == 1
    await asyncio.sleep(0.2)
    await worker.refresh()
    assert worker.overrides == []


@pytest.mark.parametrize("hours", [1, -1])
async def test_wrong_clock_of_one_host_changes_no_pause(monkeypatch, hours):
    backend = Away()
    watching, joining = follower(backend), follower(backend)
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + hours * 3600)
    await watching.refresh()
    monkeypatch.undo()
    await put(backend, 600)
    monkeypatch.setattr(time, "time", lambda real=time.time: real() + hours * 3600)
    for worker in (watching, joining):
        await worker.refresh()
        assert len(worker.overrides) == 1
    backend.away = True
    await watching.refresh()
    assert len(watching.overrides) == 1  # it saw the pause begin
    backend.away = False
    await backend.delete(OVERRIDES, f"pause {ROUTE}")
    for worker in (watching, joining):
        await worker.refresh()
        assert worker.overrides == []


async def test_pattern_means_the_routes_that_exist_when_it_is_said():
    backend = MemoryBackend()
    await backend.subscribe("orders.old", "billing")
    result = await pause(TABLE, backend, "orders.*/billing", author=ADA, why="x")
    assert [route.route for route in result.routes] == [ROUTE, "orders.old/billing"]
    result = await pause(TABLE, backend, "#/*", author=ADA, why="x")
    assert [route.route for route in result.routes] == [*TABLE.by_name, "orders.old/billing"]
    assert len(await acts(backend)) == 2


async def test_entries_of_many_routes_are_stored_together(monkeypatch):
    table = RouteTable(routes=tuple(make_route(note, group=f"g{n}") for n in range(20)), revision="1")
    async with MemoryBackend() as backend:
        under_way, all_sent = dict.fromkeys((backend.put, backend.delete), 0), asyncio.Event()

        def together(call):
            async def counted(*args, **options):
                under_way[call] += 1
                if under_way[call] == len(table.routes):
                    all_sent.set()
                await all_sent.wait()  # it hangs if the calls follow one another
                return await call(*args, **options)

            return counted

        monkeypatch.setattr(backend, "put", together(backend.put))
        async with within():
            await pause(table, backend, "orders.created/*", author=ADA, why="test")
        all_sent.clear()
        monkeypatch.setattr(backend, "delete", together(backend.delete))
        async with within():
            await resume(table, backend, "orders.created/*", author=ADA)
        assert not await read_overrides(backend)


async def test_pattern_means_a_route_with_a_pattern_if_it_matches_all_keys_of_it():
    backend = MemoryBackend()
    for pattern in ("orders.*", "#.created", "#"):
        await backend.subscribe(pattern, "audit")
    result = await pause(TABLE, backend, "orders.#/audit", author=ADA, why="x")
    assert [route.route for route in result.routes] == ["orders.created/audit", "orders.*/audit"]
    result = await pause(TABLE, backend, "orders.*/audit", author=ADA, why="x")
    assert [route.route for route in result.routes] == ["orders.*/audit"]  # a name means this route alone
    with pytest.raises(UnknownRoute):
        await resume(TABLE, backend, "orders.created.*/audit", author=ADA)


@pytest.mark.parametrize(
    ("route", "hint"),
    [("orders.created/biling", ROUTE), ("nothing.*/billing", "abe-router status"), ("orders", "")],
)
async def test_unknown_route_is_refused(route, hint):
    with pytest.raises(UnknownRoute) as error:
        await pause(TABLE, MemoryBackend(), route, author=ADA, why="x")
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("seconds", "why"), [(0, "x"), (-1, "x"), (7 * 86_400 + 1, "x"), (float("nan"), "x"), (60, " ")]
)
async def test_override_without_an_end_or_a_reason_is_refused(seconds, why):
    backend = MemoryBackend()
    with pytest.raises(OperationRefused):
        await pause(TABLE, backend, ROUTE, author=ADA, why=why, seconds=seconds)
    assert await backend.entries(OVERRIDES) == {}


async def test_resume_does_not_start_what_the_file_pauses():
    table = RouteTable(routes=(make_route(note, paused=True),), revision="1")
    backend = MemoryBackend()
    async with running(backend, table) as log:
        await pause(table, backend, ROUTE, author=ADA, why="x")
        result = await resume(table, backend, ROUTE, author=ADA)
        assert result.routes[0].paused_in_file
        await backend.publish("orders.created", 1)
        await asyncio.sleep(0.05)
        assert handled(log) == 0
        assert (await resume(table, backend, ROUTE, author=ADA)).routes[0].text == "no override"


async def test_reason_is_stored_without_credentials_and_in_any_characters():
    backend = MemoryBackend()
    why = "see redis://me:secret@host/0 \udc80" + "x" * 1000
    await pause(TABLE, backend, ROUTE, author=ADA, why=why, seconds=60)
    (override,) = await read_overrides(backend)
    assert override.why.startswith("see redis://***@host/0 \\udc80x")
    assert len(override.why) < 250


async def test_fault_of_a_provider_keeps_no_route_from_running(caplog):
    class Faulty(MemoryBackend):
        async def entries(self, bucket: str):
            if bucket == OVERRIDES:
                raise RuntimeError("a bug of a provider")
            return await super().entries(bucket)

    backend = Faulty()
    async with running(backend) as log:
        await backend.publish("orders.created", 1)
        await eventually(lambda: handled(log) == 1)
    assert "cannot read the overrides, the routes start without them" in caplog.text


async def test_unreadable_override_is_left_out():
    backend = MemoryBackend()
    await backend.put(OVERRIDES, "pause x", b"of another version")
    worker = follower(backend)
    await worker.refresh()
    assert (worker.overrides, worker.obeyed) == ([], {})


async def test_server_ends_an_override_by_its_own_clock(url: str):
    applications = [Application(TABLE, make_backend(url)) for _ in range(2)]
    log = EventLog()
    applications.append(Application(TABLE, make_backend(url), listeners=[((Event,), log)]))
    async with make_backend(url) as backend:
        for application in applications:
            await application.start()
        try:
            async with within():
                while len(await backend.entries(WORKERS)) < 3:
                    await asyncio.sleep(0.01)
                result = await pause(TABLE, backend, ROUTE, author=ADA, why="x", seconds=1.5)
                assert (len(result.obeyed), result.silent) == (3, ())
                await backend.publish("orders.created", 1)
                await log.wait_for(OverrideEnded)
                assert (await backend.entries(OVERRIDES)) == {}
                while any(s.ready + s.in_flight for s in await backend.status()):
                    await asyncio.sleep(0.01)
        finally:
            for application in applications:
                await application.stop(0.0)


async def test_once_ends_with_a_paused_route_that_has_messages(tmp_path: Path):
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"backend: sqlite:///{tmp_path}/queue.db\n"
        "routes: {a: {consumers: {g: os.path:basename, h: {handler: os.path:basename, order_by: /x}}}}\n"
    )
    table = Loader(routes).load()
    async with make_backend(table.backend) as backend:
        await pause(table, backend, "a/*", author=ADA, why="x")
        await backend.publish("a", "text")
        async with within():
            assert await Worker(Loader(routes), table, watch=False, once=True).run() == 0
        assert [status.ready for status in await backend.status()] == [1, 1]


async def test_once_ends_when_a_route_is_paused_that_holds_messages(tmp_path: Path):
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        f"backend: sqlite:///{tmp_path}/queue.db\n"
        "routes: {a: {consumers: {g: {handler: once_handlers:slow, order_by: /x}}}}\n"
    )
    (tmp_path / "once_handlers.py").write_text(
        "import asyncio\n\nasync def slow(payload): await asyncio.sleep(0.05)\n"
    )
    table = Loader(routes).load()
    log = EventLog()
    async with make_backend(table.backend) as backend, within():
        for _ in range(100):
            await backend.publish("a", {"x": 1})
        worker = Worker(Loader(routes), table, watch=False, once=True, listeners=[((Event,), log)])
        running = asyncio.create_task(worker.run())
        await log.wait_for(Handled)
        await pause(table, backend, "a/g", author=ADA, why="x")
        assert await running == 0
    assert 1 <= len(log.of(Handled)) < 100


async def test_embedded_router_on_memory_pauses_its_routes(tmp_path: Path):
    (tmp_path / "routes.yaml").write_text(
        "backend: memory://\nroutes: {a: {consumers: {g: os.path:basename}}}\n"
    )
    log = EventLog()
    async with Router.from_file(tmp_path / "routes.yaml", listeners=[((Event,), log)]) as router:
        result = await router.pause("a/g", why="gateway down", seconds=60)
        assert result.routes[0].text.endswith("gateway down")
        await router.publish("a", "text")
        await router.limit("a/g", 100.0, why="slowly")
        assert not log.of(Handled)
        result = await router.resume("a/g")
        assert result.routes[0].text == "no longer paused, no longer limited to 100/s"
        await log.wait_for(Handled)


def test_limits_of_a_route_join_its_pause_and_its_rate():
    found = limits_of(
        [Override("limit", "a/g", 0, 1, "x", "y", rate=5.0), Override("pause", "a/g", 0, 1, "x", "y")]
    )
    assert (found["a/g"].paused, found["a/g"].rate) == (True, 5.0)


async def test_report_names_the_overrides_that_the_worker_obeys():
    backend = MemoryBackend()
    async with running(backend):
        result = await pause(TABLE, backend, ROUTE, author=ADA, why="x")
        (report,) = decode_reports(await backend.entries(WORKERS)).values()
    assert report.overrides == result.revisions
