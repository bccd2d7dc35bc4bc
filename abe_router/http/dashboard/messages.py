"""The pages of the messages: the AsyncAPI document to read, one page for the keys and one for each key."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.http.access import Role, caller_of, require
from abe_router.http.dashboard.page import PageRoute, Pages, read_number
from abe_router.http.problem import Refusal
from abe_router.http.site import Site
from abe_router.messages.pattern import is_wild, matches
from abe_router.operations.asyncapi import contract_schemas
from abe_router.operations.payload_fields import PayloadField, payload_field
from abe_router.operations.routes import describe_routes, key_options
from abe_router.routing.route import Route as TableRoute
from abe_router.routing.table import Metadata, RouteTable
from abe_router.text import shortened

#: Keys on one page.
PAGE = 200
#: Most cells of text in a list of choices.
MAX_CHOICES = 200


@dataclass(frozen=True)
class KeyRow:
    """A key or pattern of the file: what it says about it, its groups, and the routes that emit to it."""

    key: str
    metadata: Metadata
    schemas: Sequence[str]
    groups: Sequence[TableRoute]
    emitted_by: Sequence[str]
    is_pattern: bool


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""

    async def list_keys(request: Request) -> Response:
        caller, table = caller_of(request), site.source.table
        given = {name: request.query_params.get(name, "") for name in ("q", "tag", "owner")}
        page = read_number(request, "page", 1, most=10**6)

        def found() -> Mapping[str, Any]:
            rows = [row for row in _rows(table) if caller.allows(Role.VIEWER, row.key)]
            fitting = [row for row in rows if _fits(row, given)]
            return {
                "rows": fitting[(page - 1) * PAGE : page * PAGE],
                "fitting": len(fitting),
                "total": len(rows),
                "tags": sorted({tag for row in rows for tag in row.metadata.tags}),
                "owners": sorted({row.metadata.owner for row in rows if row.metadata.owner}),
                "count_of_pages": max(1, -(-len(fitting) // PAGE)),
            }

        return await pages.render(
            request,
            "messages.html",
            title="Messages",
            given=given,
            page=page,
            **await asyncio.to_thread(found),
        )

    async def one_key(request: Request) -> Response:
        key, table = request.path_params["key"], site.source.table
        caller = require(request, Role.VIEWER, key)
        row = next((row for row in _rows(table) if row.key == key), None)
        if row is None:
            raise Refusal(404, "not-found", "Not found", f"the routes file has no key or pattern `{key}`")
        about = await asyncio.to_thread(payload_field, table, key)
        described = [
            each
            for each in describe_routes(table)
            if caller.allows(Role.VIEWER, each.key) and (each.key == key or matches(each.key, key))
        ]
        return await pages.render(
            request,
            "message.html",
            title=key,
            row=row,
            described=described,
            fields=[(_label(each), each, _choices(each)) for each in about.walk()],
            options=key_options(table, key),
            publishes=caller.allows(Role.PUBLISHER, key),
        )

    return [
        PageRoute("/messages", list_keys, Role.VIEWER),
        PageRoute("/messages/{key}", one_key, Role.VIEWER),
    ]


def _rows(table: RouteTable) -> Sequence[KeyRow]:
    """Return the keys and patterns of a table, and the keys that are only emitted to."""
    emitted: dict[str, list[str]] = {}
    for route in table.routes:
        if route.emit is not None:
            emitted.setdefault(route.emit.key, []).append(route.name)
    groups: dict[str, list[TableRoute]] = {}
    for route in table.routes:
        groups.setdefault(route.key, []).append(route)
    patterns = [key for key in groups if is_wild(key)]
    return [
        KeyRow(
            key,
            table.metadata_of(key),
            [schema.name for schema in contract_schemas(table, key)],
            [
                *groups.get(key, ()),
                *(route for each in patterns if each != key and matches(each, key) for route in groups[each]),
            ],
            emitted.get(key, ()),
            is_wild(key),
        )
        for key in dict.fromkeys([*table.keys, *emitted])
    ]


def _fits(row: KeyRow, given: Mapping[str, str]) -> bool:
    groups = (route.group for route in row.groups)
    said = " ".join((row.key, row.metadata.description or "", *row.schemas, *groups))
    return (
        given["q"].lower() in said.lower()
        and given["tag"] in ("", *row.metadata.tags)
        and given["owner"] in ("", row.metadata.owner or "")
    )


def _label(about: PayloadField) -> str:
    """Return the types of a field in one text: `integer`, `string or null`."""
    return " or ".join(about.kinds) or ("choice" if about.choices else "any")


def _choices(about: PayloadField) -> str:
    texts = (msgspec.json.encode(value).decode() for value in about.choices)
    return shortened(", ".join(texts), MAX_CHOICES)
