"""Traces: spans of publishers and handlers, their parents and links, and the context of messages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.compat.consumer import AsyncLoopConsumer
from abe_router.errors import Reject
from abe_router.messages.message import Message, new_message
from abe_router.observe import tracing as module
from abe_router.observe.trace_context import TraceOptions, allowed_baggage
from abe_router.observe.tracing import Tracing
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.testing import TestRouter

from .conftest import make_route

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-03", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-02"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def tracer(spans: InMemorySpanExporter) -> trace.Tracer:
    return trace.get_tracer_provider().get_tracer("test")


def router(*routes: Route, **options: object) -> TestRouter:
    keys = tuple(dict.fromkeys([route.key for route in routes] + [r.emit.key for r in routes if r.emit]))
    return TestRouter(RouteTable(routes=routes, keys=keys, revision="1", **options))


def processed(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name.startswith("process ")]


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def linked(span: ReadableSpan) -> list[str]:
    return [f"{link.context.span_id:016x}" for link in span.links]


def identity(span: ReadableSpan) -> str:
    return f"{span.context.span_id:016x}"


async def test_handler_of_a_message_from_elsewhere_is_a_child_of_its_span(spans):
    seen = []

    async def charge(payload):
        seen.append(trace.get_current_span().get_span_context())

    async with router(make_route(charge)) as running:
        message = await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, trace_of(span)) == ("process orders.created", SpanKind.CONSUMER, TRACE)
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.context.trace_state["vendor"] == "1"
    assert seen == [span.context]
    assert dict(span.attributes) == {
        "messaging.system": "abe_router",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders.created",
        "messaging.consumer.group.name": "billing",
        "messaging.message.id": message.id,
        "abe_router.attempt": 1,
    }


async def test_next_message_of_the_slot_has_no_context_of_the_last_one(spans):
    seen = []

    async def charge(payload):
        seen.append((trace.get_current_span().get_span_context().is_valid, dict(baggage.get_all())))

    names = TraceOptions(baggage=frozenset({"tenant"}))
    async with router(make_route(charge, concurrency=1), trace=names) as running:
        await running.publish("orders.created", 1, headers={**SAMPLED, "baggage": "tenant=acme"})
        await running.publish("orders.created", 2)
        await running.quiet()
    assert seen == [(True, {"tenant": "acme"}), (False, {})]


async def test_plain_handler_runs_in_the_span_too(spans):
    seen = []
    async with router(
        make_route(lambda _: seen.append(trace.get_current_span().get_span_context()))
    ) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    assert seen == [span.context for span in spans.get_finished_spans()]


async def test_publisher_in_a_span_makes_a_child_and_sends_its_context(spans, tracer):
    async with router(make_route(print)) as running:
        with tracer.start_as_current_span("request"):
            message = await running.publish("orders.created", 1, headers={"tenant": "acme"})
        await running.quiet()
    publish, request, process = spans.get_finished_spans()
    assert (publish.name, publish.kind) == ("publish orders.created", SpanKind.PRODUCER)
    assert publish.attributes["messaging.message.id"] == message.id
    assert publish.parent == request.context
    assert message.headers == {
        "tenant": "acme",
        "traceparent": f"00-{trace_of(request)}-{identity(publish)}-{publish.context.trace_flags:02x}",
    }
    assert (process.parent.span_id, process.context.trace_id) == (
        publish.context.span_id,
        request.context.trace_id,
    )


async def test_publisher_keeps_a_context_that_the_caller_gives(spans, tracer):
    async with router(make_route(print)) as running:
        with tracer.start_as_current_span("request"):
            message = await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    assert message.headers == SAMPLED
    assert [span.name for span in spans.get_finished_spans()] == ["request", "process orders.created"]


async def test_failed_append_is_an_error_of_the_span_of_the_publisher(spans, tracer):
    async with router(make_route(print)) as running:

        async def fail(messages):
            raise OSError("away")

        running.backend.append = fail
        with tracer.start_as_current_span("request"), pytest.raises(OSError, match="away"):
            await running.publish("orders.created", 1)
        del running.backend.append
    publish = spans.get_finished_spans()[0]
    assert publish.status.status_code is StatusCode.ERROR


async def test_around_publish_sees_the_context(spans, tracer):
    from contextlib import asynccontextmanager

    seen = []

    @asynccontextmanager
    async def around(message):
        seen.append(message.headers["traceparent"])
        yield message

    table = RouteTable(routes=(make_route(print),), keys=("orders.created",), revision="1")
    async with TestRouter(table, around_publish=around) as running:
        with tracer.start_as_current_span("request"):
            message = await running.publish("orders.created", 1)
    assert seen == [message.headers["traceparent"]]


@pytest.mark.parametrize(
    "headers", [{}, UNSAMPLED, {"traceparent": "nonsense"}, {"traceparent": "0" * 55 + "1"}]
)
async def test_nothing_is_traced_that_is_not_sampled(spans, headers):
    async with router(make_route(print), make_route(print, key="orders.*", batch=Batch(2))) as running:
        message = await running.publish("orders.created", 1, headers=headers)
        await running.quiet()
    assert message.headers == headers
    assert spans.get_finished_spans() == ()


async def test_malformed_context_with_a_sampled_flag_begins_a_trace(spans):
    async with router(make_route(print)) as running:
        await running.publish(
            "orders.created", 1, headers={"traceparent": "x" * 54 + "1", "tracestate": "\x00"}
        )
        await running.quiet()
    (span,) = spans.get_finished_spans()
    assert span.parent is None


async def test_ratio_begins_traces_at_the_publisher_and_at_the_handler(spans):
    async with router(make_route(print), trace=TraceOptions(ratio=1.0)) as running:
        message = await running.publish("orders.created", 1)
        await running.backend.append([new_message("orders.created", b"2")])
        await running.quiet()
    publish, *handled = spans.get_finished_spans()
    assert trace_of(publish) in message.headers["traceparent"]
    assert sorted(span.parent is None for span in handled) == [False, True]
    assert next(span for span in handled if span.parent).parent.span_id == publish.context.span_id


async def test_retry_is_a_trace_of_its_own_linked_to_the_publisher_and_the_failed_attempt(spans):
    def fail_twice(payload, message):
        if message.attempt < 3:
            raise ValueError("no")

    async with router(make_route(fail_twice)) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    first, second, third = processed(spans)
    assert (trace_of(first), linked(first)) == (TRACE, [])
    assert (second.parent, linked(second)) == (None, [SPAN, identity(first)])
    assert (third.parent, linked(third)) == (None, [SPAN, identity(second)])
    assert len({trace_of(span) for span in (first, second, third)}) == 3
    assert [span.attributes.get("error.type") for span in (first, second, third)] == ["ValueError"] * 2 + [
        None
    ]
    assert {span.status.status_code for span in (first, second, third)} == {StatusCode.UNSET}
    (event,) = first.events
    assert (event.attributes["exception.type"], event.attributes["exception.message"]) == ("ValueError", "no")
    assert "fail_twice" in event.attributes["exception.stacktrace"]


async def test_only_the_last_failure_is_an_error(spans):
    def fail(payload):
        raise ValueError("no")

    async with router(make_route(fail, retry=RetryPolicy(attempts=2, initial=0))) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    assert [span.status.status_code for span in processed(spans)] == [StatusCode.UNSET, StatusCode.ERROR]


async def test_timeout_is_recorded(spans):
    import asyncio

    async def hang(payload):
        await asyncio.Event().wait()

    async with router(make_route(hang, timeout=0.05, retry=RetryPolicy(attempts=1))) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    (span,) = processed(spans)
    assert (span.attributes["error.type"], span.status.status_code) == ("timeout", StatusCode.ERROR)


async def test_replay_is_a_trace_of_its_own_linked_to_the_dead_attempt(spans):
    failing = [True]

    def fail_once(payload):
        if failing:
            raise Reject("no")

    async with router(make_route(fail_once)) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
        (dead,) = await running.dead("orders.created/billing")
        failing.clear()
        await running.backend.replay("orders.created", "billing", [dead.id])
        await running.quiet()
    died, replayed = processed(spans)
    assert (replayed.parent, linked(replayed)) == (None, [SPAN, identity(died)])
    assert replayed.attributes["abe_router.attempt"] == 1


async def test_replay_in_another_process_is_linked_to_the_publisher_alone(spans, monkeypatch):
    monkeypatch.setattr(module, "MOST_FAILED", 0)  # so the process that replays knows no failed attempt

    def fail(payload):
        raise Reject("no")

    async with router(make_route(fail)) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
        (dead,) = await running.dead("orders.created/billing")
        await running.backend.replay("orders.created", "billing", [dead.id])
        await running.quiet()
    died, replayed = processed(spans)
    assert (trace_of(died), trace_of(replayed) == TRACE) == (TRACE, False)
    assert (replayed.parent, linked(replayed)) == (None, [SPAN])


async def test_message_that_waited_long_is_handled_in_a_trace_of_its_own(spans, monkeypatch):
    monkeypatch.setattr(module, "LINK_AFTER", -1.0)
    async with router(make_route(print)) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    (span,) = processed(spans)
    assert (span.parent, linked(span)) == (None, [SPAN])


async def test_batch_is_a_trace_of_its_own_linked_to_each_message(spans):
    def charge(payloads):
        return [ValueError("no") if payload == 2 else None for payload in payloads]

    retry = RetryPolicy(attempts=1)
    async with router(make_route(charge, batch=Batch(3, 5.0), retry=retry)) as running:
        others = [{"traceparent": f"00-{TRACE}-{n:016x}-01"} for n in (1, 2)]
        for payload, headers in enumerate([*others, {}]):
            await running.publish("orders.created", payload, headers=headers)
        await running.quiet()
    (span,) = processed(spans)
    assert (span.parent, linked(span)) == (None, [f"{1:016x}", f"{2:016x}"])
    assert span.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in span.attributes
    assert (span.attributes["error.type"], span.status.status_code) == ("ValueError", StatusCode.ERROR)


async def test_emitted_messages_continue_the_trace_of_their_handler(spans):
    seen: list[Message] = []

    def step(payload, message):
        seen.append(message)
        return payload

    routes = [
        make_route(step, key="a", emit=Emit("b")),
        make_route(step, key="b", emit=Emit("c")),
        make_route(step, key="c"),
    ]
    async with router(*routes) as running:
        await running.publish("a", 1, headers={**SAMPLED, "tenant": "acme"})
        await running.quiet()
    by_name = {span.name: span for span in processed(spans)}
    parents = [f"{by_name[name].parent.span_id:016x}" for name in ("process a", "process b", "process c")]
    assert parents == [SPAN, identity(by_name["process a"]), identity(by_name["process b"])]
    assert {trace_of(span) for span in by_name.values()} == {TRACE}
    assert {message.headers["tenant"] for message in seen} == {"acme"}
    assert {message.headers["tracestate"] for message in seen} == {"vendor=1"}


async def test_message_that_a_handler_publishes_continues_its_trace(spans):
    async def forward(payload):
        await running.publish("b", payload)

    async with router(make_route(forward, key="a"), make_route(print, key="b")) as running:
        await running.publish("a", 1, headers=SAMPLED)
        await running.quiet()
    by_name = {span.name: span for span in spans.get_finished_spans()}
    assert by_name["publish b"].parent == by_name["process a"].context
    assert by_name["process b"].parent.span_id == by_name["publish b"].context.span_id


async def test_untraced_handler_passes_the_context_on_as_it_is(spans):
    seen: list[Message] = []
    routes = [
        make_route(lambda payload: payload, key="a", emit=Emit("b")),
        make_route(lambda payload, message: seen.append(message), key="b"),
    ]
    async with router(*routes) as running:
        await running.publish("a", 1, headers=UNSAMPLED)
        await running.quiet()
    assert seen[0].headers["traceparent"] == UNSAMPLED["traceparent"]


async def test_baggage_travels_by_its_allow_list(spans, tracer):
    seen: list[tuple[Message, dict[str, object]]] = []

    def step(payload, message):
        seen.append((message, dict(baggage.get_all())))
        return payload

    names = frozenset({"tenant"})
    routes = [make_route(step, key="a", emit=Emit("b", baggage=names)), make_route(step, key="b")]
    async with router(*routes, trace=TraceOptions(baggage=names)) as running:
        await running.publish("a", 1, headers={**SAMPLED, "baggage": "user=ada, tenant=acme;p=1"})
        await running.quiet()
        token = context.attach(baggage.set_baggage("user", "eve", baggage.set_baggage("tenant", "b")))
        with tracer.start_as_current_span("request"):
            sent = await running.publish("b", 2)
        context.detach(token)
        await running.quiet()
    assert [message.headers["baggage"] for message, _ in seen] == [
        "user=ada, tenant=acme;p=1",
        "tenant=acme;p=1",
        "tenant=b",
    ]
    assert [list(members) for _, members in seen] == [["tenant"]] * 3
    assert sent.headers["baggage"] == "tenant=b"


def test_allowed_baggage_keeps_members_by_name():
    assert allowed_baggage("a=1,b = 2;p=x, c", {"b", "c"}) == {"baggage": "b = 2;p=x,c"}
    assert allowed_baggage("a=1", {"b"}) == allowed_baggage("", {""}) == {}


async def test_lines_of_a_traced_handler_have_the_trace_of_its_span(spans, caplog):
    import logging

    from abe_router import LogContext

    def fail_once(payload, message):
        logging.getLogger("shop").warning("attempt %d", message.attempt)
        if message.attempt == 1:
            raise ValueError

    caplog.handler.addFilter(LogContext())
    async with router(make_route(fail_once)) as running:
        await running.publish("orders.created", 1, headers=SAMPLED)
        await running.quiet()
    records = [record for record in caplog.records if record.name == "shop"]
    assert [record.trace_id for record in records] == [trace_of(span) for span in processed(spans)]


async def test_failed_attempts_are_remembered_up_to_a_limit(spans, monkeypatch):
    monkeypatch.setattr(module, "MOST_FAILED", 3)
    tracing = Tracing.if_set_up()
    messages = [new_message("a", b"1", headers=SAMPLED, id=str(n)) for n in range(9)]
    for message in messages:
        with tracing.processing("a", "g", [message], is_batch=False) as span:
            span.failed = True
    assert [id for _, id in tracing._failed] == ["6", "7", "8"]


def test_without_a_provider_the_library_is_not_imported():
    code = (
        "import sys; from abe_router.observe.tracing import Tracing; import abe_router.application\n"
        "assert Tracing.if_set_up() is None and 'opentelemetry' not in sys.modules\n"
        "from opentelemetry import trace; assert Tracing.if_set_up() is None\n"
        "trace.set_tracer_provider(trace.NoOpTracerProvider()); assert Tracing.if_set_up() is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_file_names_the_ratio_and_the_baggage(tmp_path: Path):
    from abe_router.config.building.loader import Loader

    path = tmp_path / "routes.yaml"
    path.write_text(
        "backend: memory://\ntrace: {ratio: 0.25, baggage: [tenant]}\n"
        "routes:\n  a: {consumers: {g: {handler: 'json:dumps', emit: b}}}\n  b: {}\n"
    )
    table = Loader(path).load()
    assert table.trace == TraceOptions(0.25, frozenset({"tenant"}))
    assert table.routes[0].emit.baggage == frozenset({"tenant"})


SLOW_EXPORT = """
import time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

class Slow(SpanExporter):
    def export(self, spans):
        time.sleep(0.8)
        with open("exported", "a") as file:
            file.writelines(f"{span.name}\\n" for span in spans)
        return SpanExportResult.SUCCESS

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Slow(), schedule_delay_millis=60_000))
trace.set_tracer_provider(provider)

async def charge(order):
    pass
"""


async def test_worker_ends_after_the_last_spans_are_exported(tmp_path):
    (tmp_path / "slow_export.py").write_text(SLOW_EXPORT)
    (tmp_path / "routes.yaml").write_text(
        f"backend: sqlite:///{tmp_path}/q.db\ntrace: {{ratio: 1.0}}\n"
        "routes: {orders.created: {consumers: {billing: slow_export:charge}}}\n"
    )
    async with make_backend(f"sqlite:///{tmp_path}/q.db") as backend:
        await backend.publish("orders.created", 1)
    command = [sys.executable, "-m", "abe_router", "serve", "--once"]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, stderr=DEVNULL)
    async with asyncio.timeout(40):
        assert await process.wait() == 0
    assert (tmp_path / "exported").read_text() == "process orders.created\n"


async def test_consumer_of_the_guide_makes_a_span(spans):
    backend = MemoryBackend()
    await backend.publish("orders.created", 1, headers=SAMPLED)
    consumer = AsyncLoopConsumer(backend, "billing")

    async def charge(payload):
        await consumer.shutdown()

    await consumer.run(charge)
    (span,) = processed(spans)
    assert (span.name, trace_of(span)) == ("process #", TRACE)
