"""`abe-router routes`: the routes of a file, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from abe_router.cli.access import read_overrides, read_table
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import json_option, routes_argument
from abe_router.cli.output import print_json, print_table
from abe_router.operations.routes import (
    KeyOptions,
    RouteDescription,
    describe_routes,
    unconsumed_keys,
)
from abe_router.routing.difference import format_batch
from abe_router.text import format_duration, format_rate

#: A table names up to this many schemas; more are counted.
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
    """List the routes of a file, and the keys without consumers.

    Handlers are not imported.
    """
    table = read_table(routes)
    described = describe_routes(table, read_overrides(table))
    if json:
        print_json(described)
        return OK
    unconsumed = unconsumed_keys(table)
    metadata = [(each.owner, each.tags, each.description) for each in described]
    metadata += [(key.metadata.owner, key.metadata.tags, key.metadata.description) for key in unconsumed]
    rows: list[tuple[str, ...]] = [
        (
            route.route,
            route.handler,
            str(route.concurrency),
            _schemas(route),
            ", ".join(_options(route)),
        )
        for route in described
    ]
    rows += [
        (key.key, "(publish only)", "", ", ".join(key.schemas), ", ".join(_key_options(key.options)))
        for key in unconsumed
    ]
    headings: tuple[str, ...] = ("route", "handler", "concurrency", "schema", "options")
    if any(any(each) for each in metadata):
        headings += ("owner", "tags", "description")
        rows = [row + _metadata(*each) for row, each in zip(rows, metadata, strict=True)]
    print_table(headings, rows, right={"concurrency"})
    return OK


def _metadata(owner: str | None, tags: Sequence[str], description: str | None) -> tuple[str, str, str]:
    return owner or "", ", ".join(tags), " ".join((description or "").split())


def _schemas(route: RouteDescription) -> str:
    names = route.schemas
    return ", ".join(names) if len(names) <= MOST_SCHEMAS else f"{len(names)} schemas"


def _options(route: RouteDescription) -> Iterator[str]:
    yield f"{route.retry.attempts} attempts" if route.retry.attempts > 1 else "no retry"
    yield f"timeout {format_duration(route.timeout)}"
    if route.when is not None:
        yield "when"
    if route.on_invalid != "dead_letter":
        yield f"on_invalid {route.on_invalid}"
    if not route.dead_letter:
        yield "no dead letters"
    if route.start != "earliest":
        yield f"start {route.start}"
    if route.batch:
        yield f"batch {format_batch(route.batch)}"
    if route.emit:
        yield f"emits {route.emit}"
    if route.rate:
        yield f"rate {format_rate(route.rate)}"
    if route.order_by:
        yield f"order by {route.order_by}"
    yield from _key_options(route)
    if route.paused:
        yield "paused"
    yield from (override.describe() for override in route.overrides)


def _key_options(options: KeyOptions | RouteDescription) -> Iterator[str]:
    if options.id:
        yield f"id {options.id}"
    if options.dedupe:
        yield f"dedupe {format_duration(options.dedupe)}"
    if options.retain:
        yield f"retain {format_duration(options.retain)}"
