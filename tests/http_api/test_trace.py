"""A message that is published over HTTP continues the trace of the client, in its handler too."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from abe_router.application import Application
from abe_router.backends.memory import MemoryBackend
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from tests.limits import HANG

from .running import serving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_handler_is_a_child_of_the_client_that_published_over_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    handled = asyncio.Event()

    async def charge(payload: object) -> None:
        handled.set()

    route = Route("orders.created", "billing", handler_from(charge))
    table = RouteTable(routes=(route,), keys=("orders.created",), revision="1")
    backend = MemoryBackend()
    application = Application(table, backend, heartbeat=False)
    async with serving(table, backend) as api, asyncio.timeout(HANG):
        await application.start()
        parent = f"00-{TRACE}-{SPAN}-01"
        answer = await api.post("/v1/publish/orders.created", b"1", headers={"traceparent": parent})
        assert answer.status_code == 202
        await handled.wait()
        await application.stop()
    (span,) = exporter.get_finished_spans()
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert span.attributes["messaging.message.id"] == answer.json()["id"]
