"""abe-router: `abe-router serve` on a routes file, and publishing with the same route table.

On `memory://`, publisher and router share a process, so `work` also publishes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.messages.message import encode
from abe_router.messages.pattern import check_key
from abe_router.observe.events import Events
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import prepare, publish
from abe_router.runtime.reconciler import Reconciler
from abe_router.schema import Schema, SchemaFolder
from bench.contenders import role
from bench.spec import GROUP, Spec

#: Numbers of keys and patterns in the file whose cost is compared.
MATCHED = (10, 100, 1_000, 10_000)


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
        groups = ", ".join(f"{group}: {consumer}" for group in _groups(spec))
        lines.append(f"  {key}: {{schema: payload.json, consumers: {{{groups}}}}}")
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n")
    return fresh.replace(path)


def _schema(spec: Spec) -> Schema:
    return SchemaFolder(spec.path).inline(spec.payloads.schema, "payload.json")


def _groups(spec: Spec) -> tuple[str, ...]:
    return (GROUP, *(f"{GROUP}{number}" for number in range(1, spec.groups)))


def _table(spec: Spec, *, routed: bool = False) -> RouteTable:
    schema = _schema(spec)
    bindings = tuple(SchemaBinding(key, schema) for key in spec.patterns)
    routes: tuple[Route, ...] = ()
    if routed:
        from bench.handler import COROUTINES

        handler = handler_from(COROUTINES[spec.handling])
        routes = tuple(
            Route(c.pattern, group, handler, (c,), concurrency=spec.concurrency)
            for c in bindings
            for group in _groups(spec)
        )
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


def match(spec: Spec) -> None:
    """Print the time in us that a table takes for a key, by its size: for a key seen first, and again."""
    found, schema = {}, _schema(spec)
    for kind, form in (("key", "orders.r{}"), ("pattern", "orders.r{}.*")):
        for size in MATCHED:
            names = tuple(form.format(number) for number in range(size))
            bindings = tuple(SchemaBinding(name, schema) for name in names)
            first, again = _match(RouteTable(keys=names, bindings=bindings), names)
            found |= {f"{kind}.{size}.first": first * 1e6, f"{kind}.{size}.again": again * 1e6}
    print(json.dumps(found))


def _match(table: RouteTable, names: Sequence[str]) -> tuple[float, float]:
    """Look up each key twice, so that every table answers for the same number of keys."""
    took = [0.0, 0.0]
    rounds = max(1, MATCHED[-1] // len(names))
    for number in range(rounds):
        check_key.cache_clear()  # it has seen the keys of the rounds before
        fresh = replace(table, _contracts={}, _matched={})
        fresh.contract(names[0].replace("*", "warm"))
        keys = [name.replace("*", f"x{number}") for name in names]
        for attempt in range(2):
            began = time.perf_counter()
            for key in keys:
                fresh.contract(key)
            took[attempt] += time.perf_counter() - began
    return took[0] / (rounds * len(names)), took[1] / (rounds * len(names))


if __name__ == "__main__":
    if sys.argv[1] == "match":
        match(Spec.received())
    else:
        role.main(connect, work)
