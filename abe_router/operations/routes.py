"""The routes of a table and the keys without consumers, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from abe_router.messages.dedupe import Deduplication
from abe_router.messages.pattern import is_wild, matches
from abe_router.routing.difference import format_start
from abe_router.routing.policies import Batch, RetryPolicy
from abe_router.routing.route import OnInvalid, Route
from abe_router.routing.table import Metadata, RouteTable
from abe_router.runtime.override import Override


class KeyOptions(msgspec.Struct, frozen=True):
    """The options of a key or pattern that apply to all of its routes.

    `id` is the source of the ids of messages. `dedupe` and `retain` are in seconds. Without `dedupe`, no id
    is remembered.
    """

    id: str | None
    dedupe: float | None
    retain: float


class RouteDescription(msgspec.Struct, frozen=True):
    """All options of a route, in the form of the routes file.

    Durations are in seconds and rates in messages per second. `id`, `dedupe` and `retain` are those of the
    key; see `KeyOptions`. `overrides` are those in force, where they were read. The last three are the
    metadata of the route; see `RouteTable.metadata_of`.
    """

    route: str
    key: str
    group: str
    handler: str
    schemas: tuple[str, ...]
    when: Any
    concurrency: int
    timeout: float
    retry: RetryPolicy
    max_deliveries: int
    max_unacked: int
    lease: float
    drain: float
    on_invalid: OnInvalid
    dead_letter: bool
    start: str
    paused: bool
    batch: Batch | None
    rate: float | None
    order_by: str | None
    emit: str | None
    id: str | None
    dedupe: float | None
    retain: float
    overrides: tuple[Override, ...] = ()
    description: str | None = None
    tags: tuple[str, ...] = ()
    owner: str | None = None


class UnconsumedKey(msgspec.Struct, frozen=True):
    """A key of the file that no route matches. Its messages are stored and stay there."""

    key: str
    schemas: tuple[str, ...]
    options: KeyOptions
    metadata: Metadata = Metadata()


def describe_routes(table: RouteTable, overrides: Sequence[Override] = ()) -> tuple[RouteDescription, ...]:
    """Return every route of a table, in the order of the file, with its overrides."""
    return tuple(
        _describe(table, route, tuple(each for each in overrides if each.route == route.name))
        for route in table.routes
    )


def unconsumed_keys(table: RouteTable) -> tuple[UnconsumedKey, ...]:
    """Return the keys and patterns of a table that no route matches, in the order of the file."""
    return tuple(
        UnconsumedKey(key, _names_of_schemas(table, key), key_options(table, key), table.metadata_of(key))
        for key in table.keys
        if not any(matches(route.key, key) for route in table.routes)
    )


def _describe(table: RouteTable, route: Route, overrides: tuple[Override, ...]) -> RouteDescription:
    options, metadata = key_options(table, route.key), table.metadata_of(route.name)
    return RouteDescription(
        route=route.name,
        key=route.key,
        group=route.group,
        handler=route.handler.path,
        schemas=tuple(dict.fromkeys(binding.schema.name for binding in route.bindings)),
        when=route.when.document if route.when else None,
        concurrency=route.concurrency,
        timeout=route.timeout,
        retry=route.retry,
        max_deliveries=route.delivery_limit,
        max_unacked=route.max_unacked,
        lease=route.lease,
        drain=route.drain,
        on_invalid=route.on_invalid,
        dead_letter=route.dead_letter,
        start=format_start(route.start),
        paused=route.paused,
        batch=route.batch,
        rate=route.rate,
        order_by=route.order_by,
        emit=route.emit.key if route.emit else None,
        id=options.id,
        dedupe=options.dedupe,
        retain=options.retain,
        overrides=overrides,
        description=metadata.description,
        tags=metadata.tags,
        owner=metadata.owner,
    )


def key_options(table: RouteTable, key: str) -> KeyOptions:
    """Return the options of a key or pattern that its own entry of the file has."""
    deduplication = table.deduplications.get(key, Deduplication())
    return KeyOptions(
        id=deduplication.source or None,
        dedupe=deduplication.window or None,
        retain=table.retain.get(key, 0.0),
    )


def _names_of_schemas(table: RouteTable, key: str) -> tuple[str, ...]:
    if is_wild(key):  # a pattern has no contract of its own
        schemas = [binding.schema for binding in table.bindings if matches(binding.pattern, key)]
        return tuple(dict.fromkeys(schema.name for schema in schemas))
    return tuple(dict.fromkeys(schema.name for schema in table.contract(key).schemas))
