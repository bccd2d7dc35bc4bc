"""abe-router: `abe-router serve` on a routes file, and publishing with the same route table.

On `memory://`, publisher and router share a process, so `work` also publishes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.messages.message import encode
from abe_router.observe.events import Events
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import prepare, publish
from abe_router.runtime.reconciler import Reconciler
from abe_router.schema import SchemaFolder
from bench.contenders import role
from bench.spec import GROUP, Spec


class AbePublisher(role.Publisher):
    """`publish` for one message and for many callers, `append` of prepared messages for a batch."""

    def __init__(self, table: RouteTable, backend: Backend) -> None:
        self._table, self._backend = table, backend

    async def one(self, key: str, payload: Any) -> None:
        await publish(self._table, self._backend, key, payload)

    async def batch(self, items: Sequence[role.Item]) -> None:
        await self._backend.append([prepare(self._table, key, encode(payload)) for key, payload in items])


@asynccontextmanager
async def connect(spec: Spec) -> AsyncIterator[AbePublisher]:
    backend = make_backend(spec.url)
    try:
        yield AbePublisher(_table(spec), backend)
    finally:
        await backend.close()


def work(spec: Spec) -> None:
    if spec.url.startswith("memory:"):
        role.run(_work_in_memory(spec), spec)
        return
    if not spec.uvloop:
        sys.modules["uvloop"] = None  # type: ignore[assignment]  # as if it were not installed
    from abe_router.__main__ import main

    main(["serve", str(routes_file(spec)), "--log-level", "warning", "--log-format", "text"])


def routes_file(spec: Spec, handlers: dict[str, str] | None = None) -> Path:
    """Write the routes file and its schema; `handlers` overrides the handlers of some keys."""
    path = spec.path / "routes.yaml"
    (spec.path / "payload.json").write_text(json.dumps(spec.payloads.schema))
    lines = [f"backend: {json.dumps(spec.url)}", "schemas: .", "routes:"]
    for key in spec.patterns:
        handler = (handlers or {}).get(key, f"bench.handler:{spec.handling}")
        consumer = f"{{handler: '{handler}', concurrency: {spec.concurrency}}}"
        lines.append(f"  {key}: {{schema: payload.json, consumers: {{{GROUP}: {consumer}}}}}")
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n")
    return fresh.replace(path)


def _table(spec: Spec, *, routed: bool = False) -> RouteTable:
    schema = SchemaFolder(spec.path).inline(spec.payloads.schema, "payload.json")
    bindings = tuple(SchemaBinding(key, schema) for key in spec.patterns)
    routes: tuple[Route, ...] = ()
    if routed:
        from bench.handler import COROUTINES

        handler = handler_from(COROUTINES[spec.handling])
        routes = tuple(Route(c.pattern, GROUP, handler, (c,), concurrency=spec.concurrency) for c in bindings)
    return RouteTable(routes=routes, keys=spec.patterns, bindings=bindings, backend=spec.url)


async def _work_in_memory(spec: Spec) -> None:
    table, backend = _table(spec, routed=True), make_backend(spec.url)
    publisher = AbePublisher(table, backend)
    await role.fill(publisher, spec)
    await Reconciler(backend, Events()).apply(table)
    if spec.rate:
        await asyncio.sleep(0.1)  # the first message blocks the process until the gate opens
        await role.pace(publisher, spec)
    await asyncio.Event().wait()


if __name__ == "__main__":
    role.main(connect, work)
