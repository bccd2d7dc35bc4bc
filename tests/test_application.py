"""Router in a program: scripts, FastAPI and Starlette, with the frameworks themselves; and Application."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import asynccontextmanager
from contextvars import ContextVar

import msgspec
import pytest

from abe_router.application import Application
from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendError, ConfigError, NoRoute, PayloadInvalid
from abe_router.observe.events import ConfigWarning, Event, Handled, Reloaded, ReloadRejected
from abe_router.operations.status import read_workers
from abe_router.router import Router
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_record import read_edits
from tests.limits import HANG

ROUTES = """\
backend: {backend}
schemas: .
routes:
  orders.created:
    schema: order.json
    consumers:
      billing: {{handler: "web_handlers:charge"}}
"""
ORDER = '{"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}}'
HANDLERS = """\
import asyncio
charged = []
began, go = asyncio.Event(), asyncio.Event()

async def charge(order):
    charged.append(order["total"])

async def slow(order):
    from web_app import router
    began.set()
    await go.wait()
    await router.publish("orders.created", {"total": -1})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "routes.yaml").write_text(ROUTES.format(backend=f"sqlite:///{tmp_path}/web.db"))
    (tmp_path / "order.json").write_text(ORDER)
    (tmp_path / "web_handlers.py").write_text(HANDLERS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for module in ("web_handlers", "web_app"):
        sys.modules.pop(module, None)


class HandledCounter:
    """A listener that counts handled messages, and lets a test wait for them."""

    def __init__(self):
        self.count, self.changed = 0, asyncio.Event()
        self.listener = ((Handled,), self)

    def __call__(self, event):
        self.count += 1
        self.changed.set()

    async def wait(self, count):
        async with asyncio.timeout(HANG):
            while self.count < count:
                self.changed.clear()
                await self.changed.wait()


def test_traceback_of_a_faulty_file_shows_every_fault_as_check_does(folder):
    (folder / "routes.yaml").write_text("routes:\n  a.b: {consumers: {x: 'web_handlers:charg'}, shema: x}\n")
    with pytest.raises(ConfigError) as raised:
        Router.from_file("routes.yaml")
    text = "".join(traceback.format_exception(raised.value))
    assert "hint: did you mean `schema`?" in text
    assert "error[R303]" in text
    assert " --> routes.yaml:2:" in text


async def test_it_runs_the_routes_and_publishes_through_the_same_file(folder):
    handled = HandledCounter()
    async with Router.from_file("routes.yaml", listeners=[handled.listener]) as router:
        message = await router.publish("orders.created", {"total": 5}, headers={"trace": "t"}, id="a1")
        await handled.wait(1)
    assert (message.id, message.headers) == ("a1", {"trace": "t"})
    assert sys.modules["web_handlers"].charged == [5]


async def test_it_refuses_a_payload_that_breaks_its_schema_and_a_key_without_a_route(folder):
    async with Router.from_file(folder / "routes.yaml", consume=False) as router:
        with pytest.raises(PayloadInvalid, match="/total"):
            await router.publish("orders.created", {"total": "5"})
        with pytest.raises(NoRoute):
            await router.publish("orders.deleted", {})


async def test_with_consume_false_it_imports_no_handler_and_consumes_nothing(folder):
    async with Router.from_file("routes.yaml", consume=False) as router:
        await router.publish("orders.created", {"total": 5})
        assert router.table.routes == ()
        assert await router.backend.status() == []
    assert "web_handlers" not in sys.modules


async def test_from_file_raises_the_errors_of_the_file(folder):
    (folder / "routes.yaml").write_text(
        "routes:\n  orders.created: {consumers: {billing: web_handlers:nothing}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        Router.from_file("routes.yaml")
    assert "no function `nothing`" in str(caught.value)


async def test_publishing_without_entering_raises_an_error_that_explains_how_to_enter(folder):
    router = Router.from_file("routes.yaml", consume=False)
    with pytest.raises(RuntimeError, match="enter it with `async with`"):
        await router.publish("orders.created", {"total": 5})
    async with router:
        with pytest.raises(RuntimeError, match="runs already"):
            await router.__aenter__()
        await router.publish("orders.created", {"total": 5})
    with pytest.raises(RuntimeError):
        _ = router.backend


async def test_it_can_be_entered_again(folder):
    router = Router.from_file("routes.yaml", consume=False)
    for total in (1, 2):
        async with router:
            await router.publish("orders.created", {"total": total})


async def test_a_backend_that_cannot_be_opened_fails_the_start_and_leaves_nothing_running(folder):
    router = Router.from_file("routes.yaml", backend="sqlite:////nowhere/at/all.db")
    with pytest.raises(BackendError):
        await router.__aenter__()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = router.backend


async def test_it_follows_edits_of_the_file(folder):
    reloaded = asyncio.Queue()
    listener = ((Reloaded,), reloaded.put_nowait)
    async with Router.from_file("routes.yaml", listeners=[listener]) as router:
        assert (await reloaded.get()).added == ("orders.created/billing",)
        text = (folder / "routes.yaml").read_text()
        (folder / "routes.yaml").write_text(text + "      audit: web_handlers:charge\n")
        async with asyncio.timeout(HANG):
            assert (await reloaded.get()).added == ("orders.created/audit",)
        assert len(router.table.routes) == 2


async def test_a_warning_of_an_edit_is_an_event_and_is_kept_until_the_edit_that_mends_it(folder):
    said: list[Event] = []
    reloads = asyncio.Queue()
    listeners = [((ConfigWarning,), said.append), ((Reloaded,), reloads.put_nowait)]
    path = folder / "routes.yaml"
    text, added = path.read_text(), "      slow: {handler: web_handlers:charge, timeout: 40s}\n"
    async with Router.from_file(path, listeners=listeners) as router:
        for edited in (None, text + added, "# moved\n" + text + added, text, text + added):
            if edited is not None:
                path.write_text(edited)
            async with asyncio.timeout(10):
                await reloads.get()
        line = len(text.splitlines()) + 1
        assert [(each.code, each.place.rpartition(":")[0]) for each in said] == [
            ("W106", f"{path}:{line}"),
            ("W106", f"{path}:{line}"),  # the second edit moved it, the third mended it, the fourth made it
        ]
        async with asyncio.timeout(10):
            while len(edits := await read_edits(router.backend)) < 5:
                await asyncio.sleep(0.02)
        assert [[each.code for each in edit.warnings] for edit in edits] == [
            [],
            ["W106"],
            ["W106"],
            [],
            ["W106"],
        ]
        assert edits[1].change.endswith("; 1 warning")
        while [report.warnings for report in (await read_workers(router.backend)).values()] != [1]:
            await asyncio.sleep(0.02)


async def test_a_handler_that_runs_during_the_drain_can_publish(folder):
    text = (folder / "routes.yaml").read_text().replace("web_handlers:charge", "web_handlers:slow")
    (folder / "routes.yaml").write_text(text)
    (folder / "web_app.py").write_text(
        'from abe_router import Router\nrouter = Router.from_file("routes.yaml")\n'
    )
    from web_app import router

    handlers = sys.modules["web_handlers"]
    await router.__aenter__()
    await router.publish("orders.created", {"total": 1})
    await handlers.began.wait()
    backend = router.backend
    leaving = asyncio.create_task(router.__aexit__())
    await asyncio.wait({leaving}, timeout=0.2)  # it is stopping by then
    handlers.go.set()
    await leaving
    async with backend:
        left = await (await backend.subscribe("orders.created", "billing")).fetch(10, 0.5)
    assert [delivery.message.payload for delivery in left] == [{"total": -1}]


async def test_an_embedded_router_logs_the_diagnostics_of_a_rejected_edit(folder, caplog):
    async with Router.from_file("routes.yaml"), asyncio.timeout(HANG):
        text = (folder / "routes.yaml").read_text()
        (folder / "routes.yaml").write_text(text + "      timeoot: 3s\n")
        while "edit rejected" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "timeoot: 3s" in caplog.text  # the line with the error
    assert "routes.yaml:8:" in caplog.text


class BrokenHeartbeat(MemoryBackend):
    """Raises an error that no provider should raise, in the calls of the heartbeat."""

    def __init__(self):
        super().__init__()
        self.puts = 0

    async def put(self, *args, **options):
        self.puts += 1
        raise LookupError("unforeseen")

    async def delete(self, *args, **options):
        raise LookupError("unforeseen as well")


async def test_an_unforeseen_error_of_the_heartbeat_is_logged_and_does_not_end_the_application(
    caplog, monkeypatch
):
    monkeypatch.setattr("abe_router.runtime.background.FIRST_DELAY", 0.001)
    backend = BrokenHeartbeat()
    application = Application(RouteTable(unrouted="allow"), backend)
    await application.start()
    async with asyncio.timeout(HANG):
        while backend.puts < 5:
            await asyncio.sleep(0.001)
    assert (await application.publish("orders.created", {})).key == "orders.created"
    assert await application.stop() == 0
    assert caplog.text.count("the heartbeat failed") == 1  # the same error is not logged each time
    assert "LookupError: unforeseen" in caplog.text


async def test_around_publish_wraps_the_append_and_adds_headers(folder):
    steps = []

    @asynccontextmanager
    async def trace(message):
        steps.append(("begin", message.key, dict(message.headers)))
        yield msgspec.structs.replace(message, headers={**message.headers, "traceparent": "00-1"})
        steps.append(("end", message.key))

    async with Router.from_file("routes.yaml", consume=False, around_publish=trace) as router:
        message = await router.publish("orders.created", {"total": 5}, headers={"a": "b"})
        with pytest.raises(PayloadInvalid):
            await router.publish("orders.created", {})
        handle = await router.backend.subscribe("orders.created", "audit")
        (delivery,) = await handle.fetch(10, 1.0)
    assert message.headers == delivery.message.headers == {"a": "b", "traceparent": "00-1"}
    assert steps == [("begin", "orders.created", {"a": "b"}), ("end", "orders.created")]


async def test_around_wraps_the_call_of_the_handler(folder):
    current, steps = ContextVar("current", default=""), []

    @asynccontextmanager
    async def trace(deliveries):
        current.set(deliveries[0].message.id)
        steps.append("begin")
        yield
        steps.append("end")

    handled = HandledCounter()
    (folder / "web_handlers.py").write_text("def charge(order): order_handled(order)\n")
    router = Router.from_file("routes.yaml", around=trace, listeners=[handled.listener])
    sys.modules["web_handlers"].order_handled = lambda order: steps.append(current.get())
    async with router:
        await router.publish("orders.created", {"total": 5}, id="a1")
        await handled.wait(1)
    assert steps == ["begin", "a1", "end"]  # in the thread of a plain handler too


FASTAPI = """\
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from abe_router import PayloadInvalid, Router

router = Router.from_file("routes.yaml")
app = FastAPI(lifespan=router.lifespan)

@app.post("/orders", status_code=202)
async def create(order: dict) -> dict:
    message = await router.publish("orders.created", order)
    return {"id": message.id}

@app.get("/backlog")
async def backlog(request: Request) -> int:
    return sum(s.ready for s in await request.state.router.backend.status())

@app.exception_handler(PayloadInvalid)
async def refuse(request: Request, error: PayloadInvalid) -> JSONResponse:
    return JSONResponse([vars_of(v) for v in error.violations], status_code=422)

def vars_of(violation):
    return {"pointer": violation.pointer, "keyword": violation.keyword}
"""


def test_it_runs_in_the_lifespan_of_fastapi(folder):
    testclient = pytest.importorskip("fastapi.testclient")
    (folder / "web_app.py").write_text(FASTAPI)
    from web_app import app

    for total in (7, 8):  # an application may be started twice, as by two test clients
        with testclient.TestClient(app) as client:
            answer = client.post("/orders", json={"total": total})
            assert (answer.status_code, list(answer.json())) == (202, ["id"])
            refused = client.post("/orders", json={"total": "7"})
            assert (refused.status_code, refused.json()) == (422, [{"pointer": "/total", "keyword": "type"}])
            while client.get("/backlog").json():
                pass
    assert sys.modules["web_handlers"].charged == [7, 8]


def test_it_runs_in_the_lifespan_of_starlette(folder):
    pytest.importorskip("starlette")
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    router = Router.from_file("routes.yaml", consume=False)

    async def create(request):
        message = await request.state.router.publish("orders.created", await request.json())
        return JSONResponse({"key": message.key})

    app = Starlette(routes=[Route("/orders", create, methods=["POST"])], lifespan=router.lifespan)
    with TestClient(app) as client:
        assert client.post("/orders", json={"total": 7}).json() == {"key": "orders.created"}


async def test_an_embedded_router_logs_the_traceback_of_a_failed_handler(folder, caplog):
    (folder / "web_handlers.py").write_text("def charge(order):\n    return order['totl']\n")
    async with Router.from_file(folder / "routes.yaml", watch=False) as router:
        await router.publish("orders.created", {"total": 1})
        async with asyncio.timeout(HANG):
            while "KeyError: 'totl'" not in caplog.text:
                await asyncio.sleep(0.01)
    (message, *_) = [m for m in caplog.messages if "KeyError" in m]
    assert message.splitlines()[1] == "  Traceback (most recent call last):"
    assert "line 2, in charge" in message


async def test_an_application_counts_what_its_routes_and_its_process_did(folder):
    handled, rejected = HandledCounter(), asyncio.Event()
    listeners = [handled.listener, ((ReloadRejected,), lambda _: rejected.set())]
    async with Router.from_file("routes.yaml", listeners=listeners) as router:
        application = router._running
        await router.publish("orders.created", {"total": 5})
        await handled.wait(1)
        (folder / "routes.yaml").write_text("routes: 7\n")
        async with asyncio.timeout(HANG):
            await rejected.wait()
        counts = application.counts()["orders.created/billing"]
        assert (counts.total("handled"), sum(counts.handling), sum(counts.waiting)) == (1, 1, 1)
        process = application.process_counts()
        assert (process.accepted, process.rejected, process.outages, process.stalls) == (1, 1, 0, 0)
    assert application.counts()["orders.created/billing"].total("handled") == 1
