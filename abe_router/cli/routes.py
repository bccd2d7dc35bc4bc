"""`abe-router routes`: the routes of a file, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from abe_router.cli.access import read_table
from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK
from abe_router.cli.options import json_option, routes_argument
from abe_router.cli.screen import show_json, show_table
from abe_router.messages.dedupe import Deduplication
from abe_router.messages.pattern import matches
from abe_router.routing.policies import Batch
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.text import format_duration, format_rate, format_time

#: More schemas than these are counted in the table, not named.
MOST_SCHEMAS = 3


@as_command(
    "routes",
    """
    abe-router routes
    abe-router routes --json | jq '.[].route'
    """,
)
@routes_argument
@json_option
def command(routes: Path, json: bool) -> int:
    """List the routes of a file, and the keys that are only published to.

    Handlers are not imported.
    """
    table = read_table(routes)
    if json:
        show_json([{**route_values(route), **_key_values(table, route.key)} for route in table.routes])
        return OK
    rows = [
        (
            route.name,
            route.handler.path,
            str(route.concurrency),
            _schemas(route),
            ", ".join(_policies(table, route)),
        )
        for route in table.routes
    ]
    rows += [
        (key, "(publish only)", "", _key_schemas(table, key), ", ".join(_key_policies(table, key)))
        for key in _unconsumed(table)
    ]
    show_table(("route", "handler", "concurrency", "schema", "policies"), rows, right={"concurrency"})
    return OK


def route_values(route: Route) -> dict[str, Any]:
    """Return everything a consumer says, as plain JSON values; durations and rates are by the second."""
    return {
        "route": route.name,
        "key": route.key,
        "group": route.group,
        "handler": route.handler.path,
        "schemas": [contract.schema.name for contract in route.bindings],
        "when": route.when.document if route.when else None,
        "concurrency": route.concurrency,
        "timeout": route.timeout,
        "retry": route.retry,
        "max_deliveries": route.delivery_limit,
        "lease": route.lease,
        "drain": route.drain,
        "on_invalid": route.on_invalid,
        "dead_letter": route.dead_letter,
        "start": start_text(route.start),
        "paused": route.paused,
        "batch": route.batch,
        "rate": route.rate,
        "order_by": route.order_by,
        "emit": route.emit.key if route.emit else None,
    }


def _key_values(table: RouteTable, key: str) -> dict[str, Any]:
    """Return what the file says of a key itself but its schema, all of its routes alike."""
    known = table.deduplications.get(key, Deduplication())
    return {
        "id": known.source or None,
        "dedupe": known.window or None,
        "retain": table.retain.get(key, 0.0),
    }


def start_text(start: float) -> str:
    """Return where a group begins, as the routes file writes it."""
    if start == 0:
        return "earliest"
    return "latest" if math.isinf(start) else format_time(start)


def batch_text(batch: Batch) -> str:
    """Return how messages are brought together."""
    return f"up to {batch.size:,} in {format_duration(batch.wait)}"


def _policies(table: RouteTable, route: Route) -> Iterator[str]:
    retry = route.retry
    yield f"{retry.attempts} attempts" if retry.attempts > 1 else "no retry"
    yield f"timeout {format_duration(route.timeout)}"
    if route.when:
        yield "when"
    if route.on_invalid != "dead_letter":
        yield f"on_invalid {route.on_invalid}"
    if not route.dead_letter:
        yield "no dead letters"
    if route.start != 0:
        yield f"start {start_text(route.start)}"
    if route.batch:
        yield f"batch {batch_text(route.batch)}"
    if route.emit:
        yield f"emits {route.emit.key}"
    if route.rate:
        yield f"rate {format_rate(route.rate)}"
    if route.order_by:
        yield f"order by {route.order_by}"
    yield from _key_policies(table, route.key)
    if route.paused:
        yield "paused"


def _key_policies(table: RouteTable, key: str) -> Iterator[str]:
    said = _key_values(table, key)
    if said["id"]:
        yield f"id {said['id']}"
    for name in ("dedupe", "retain"):
        if said[name]:
            yield f"{name} {format_duration(said[name])}"


def _schemas(route: Route) -> str:
    names = list(dict.fromkeys(contract.schema.name for contract in route.bindings))
    return ", ".join(names) if len(names) <= MOST_SCHEMAS else f"{len(names)} schemas"


def _key_schemas(table: RouteTable, key: str) -> str:
    return ", ".join(dict.fromkeys(c.schema.name for c in table.bindings if matches(c.pattern, key)))


def _unconsumed(table: RouteTable) -> list[str]:
    return [key for key in table.keys if not any(matches(route.key, key) for route in table.routes)]
