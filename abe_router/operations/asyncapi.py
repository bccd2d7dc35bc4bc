"""The AsyncAPI 3.1 document of a table: its keys as channels, their contracts as messages, its routes.

A channel is a key or a pattern. A key that is published or emitted to has an operation `send`, and each route
has an operation `receive`. What AsyncAPI has no word for is in `x-abe-router`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from abe_router.messages.pattern import covers, is_wild, overlaps
from abe_router.messages.pointer import escape
from abe_router.observe.trace_context import BAGGAGE, TRACEPARENT, TRACESTATE
from abe_router.operations.routes import describe_routes, key_options
from abe_router.routing.policies import CAUSE, HOPS
from abe_router.routing.route import Route
from abe_router.routing.table import Metadata, RouteTable
from abe_router.schema import Schema
from abe_router.schema.export import SchemaExport
from abe_router.text import json_safe, redact_url

_VERSION = "3.1.0"
#: The name of the component for headers. Every message may have them, and any others.
_HEADERS = "abe-router.headers"
_HEADER_TEXTS = {
    HOPS: "The number of handlers that led to the message.",
    CAUSE: "The id of the message whose handler emitted this one.",
    TRACEPARENT: "The trace context: https://www.w3.org/TR/trace-context/",
    TRACESTATE: "The state of the trace context.",
    BAGGAGE: "The baggage of the trace: https://www.w3.org/TR/baggage/",
}
#: What a route's description has that the document says elsewhere.
_SAID_ELSEWHERE = {
    *("route", "key", "schemas", "overrides", "id", "dedupe", "retain"),
    *("description", "tags", "owner"),
}
_NO_ID = re.compile(r"[^A-Za-z0-9._-]+")


def asyncapi_document(table: RouteTable, *, shows: Callable[[str], bool] = lambda _: True) -> dict[str, Any]:
    """Return the document as a JSON value. It has the keys and patterns that `shows` accepts.

    Parts of schemas that cannot be written in it accept everything. They are named in `unchecked` of
    `x-abe-router`.
    """
    return _Document(table, shows).value()


def contract_schemas(table: RouteTable, key: str) -> Sequence[Schema]:
    """Return the schemas that every message of a key or a pattern satisfies."""
    if not is_wild(key):
        return table.contract(key).schemas
    near = (each for each in table.bindings if overlaps(each.pattern, key))
    return tuple(dict.fromkeys(each.schema for each in near if covers(each.pattern, key)))


class _Document:
    """Builds the document of one table."""

    def __init__(self, table: RouteTable, shows: Callable[[str], bool]) -> None:
        self._table = table
        self._routes = [route for route in table.routes if shows(route.key)]
        emitted: dict[str, list[str]] = {}
        for route in self._routes:
            if route.emit is not None and shows(route.emit.key):
                emitted.setdefault(route.emit.key, []).append(route.name)
        self._emitted = emitted
        self._keys = list(dict.fromkeys([*filter(shows, table.keys), *emitted]))
        self._ids = _channel_ids(self._keys)
        self._schemas = SchemaExport()

    def value(self) -> dict[str, Any]:
        """Return the whole document."""
        table, export = self._table, self._schemas
        headers = export.add(_HEADERS, _headers_schema())
        messages = {self._ids[key]: self._message(key, headers) for key in self._keys}
        operations = dict(self._operations())
        schemas = export.components()  # after everything that refers to them
        return {
            "asyncapi": _VERSION,
            "info": {
                "title": f"Messages of {json_safe(table.path.name) if table.path else 'abe-router'}",
                "version": table.revision[:12] or "0",
            },
            "defaultContentType": "application/json",
            "servers": {"backend": _server(table.backend)},
            "channels": {self._ids[key]: self._channel(key) for key in self._keys},
            "operations": operations,
            "components": {"messages": messages, "schemas": schemas},
            "x-abe-router": _given(
                {"revision": table.revision, "prefix": table.prefix, "unchecked": export.unchecked}
            ),
        }

    def _channel(self, key: str) -> dict[str, Any]:
        address, parameters = _address(key)
        options = msgspec.to_builtins(key_options(self._table, key))
        options["retain"] = options["retain"] or None
        metadata = self._table.metadata_of(key)
        extension = {"pattern": key if is_wild(key) else None, **options, "owner": metadata.owner}
        return {
            "address": address,
            **_texts(metadata),
            "messages": {"message": {"$ref": f"#/components/messages/{self._ids[key]}"}},
            **({"parameters": parameters} if parameters else {}),
            **_extended(extension),
        }

    def _message(self, key: str, headers: dict[str, Any]) -> dict[str, Any]:
        schemas = contract_schemas(self._table, key)
        return {
            "name": key,
            "contentType": "application/json",
            "headers": headers,
            "payload": self._schemas.payload(schemas),
            **_extended({"schemas": [json_safe(schema.name) for schema in schemas]}),
        }

    def _operations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._keys:
            if not is_wild(key):
                emitted_by = self._emitted.get(key)
                yield key, {"action": "send", **self._of(key), **_extended({"emittedBy": emitted_by})}
        described = {each.route: each for each in describe_routes(self._table)}
        for route in self._routes:
            options = msgspec.to_builtins(described[route.name])
            policies = {name: value for name, value in options.items() if name not in _SAID_ELSEWHERE}
            yield route.name, self._receive(route, policies)

    def _receive(self, route: Route, policies: dict[str, Any]) -> dict[str, Any]:
        metadata = self._table.metadata_of(route.name)
        if route.when is not None:
            policies["when"] = self._schemas.payload([route.when])
        if route.emit is not None and route.emit.key not in self._emitted:
            del policies["emit"]
        return {
            "action": "receive",
            "title": route.group,
            **_texts(metadata),
            **self._of(route.key),
            **_extended({**policies, "owner": metadata.owner}),
        }

    def _of(self, key: str) -> dict[str, Any]:
        """Return the channel and the message of an operation."""
        channel = f"#/channels/{escape(self._ids[key])}"
        return {"channel": {"$ref": channel}, "messages": [{"$ref": f"{channel}/messages/message"}]}


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, "", [], (), {})}


def _extended(members: dict[str, Any]) -> dict[str, Any]:
    given = _given(members)
    return {"x-abe-router": given} if given else {}


def _texts(metadata: Metadata) -> dict[str, Any]:
    tags = [{"name": json_safe(tag)} for tag in metadata.tags]
    return _given({"description": json_safe(metadata.description or ""), "tags": tags})


def _channel_ids(keys: Sequence[str]) -> dict[str, str]:
    """Return an id for each key and pattern, of characters that need no escape in a reference."""
    found: dict[str, str] = {}
    taken = {key for key in keys if not _NO_ID.search(key)}
    for key in keys:
        wanted = name = _NO_ID.sub("_", _address(key)[0].replace("{", "").replace("}", ""))
        number = 1
        while name != key and name in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name)
        found[key] = name
    return found


def _address(key: str) -> tuple[str, dict[str, Any]]:
    """Return the address of a channel, and the parameters in it, which are the wildcards of a pattern."""
    parameters: dict[str, Any] = {}
    words = []
    for word in key.split("."):
        if word == "*":
            name, text = f"word{sum(n.startswith('word') for n in parameters) + 1}", "One word."
        elif word == "#":
            count = sum(n.startswith("rest") for n in parameters)
            name = f"rest{count + 1}" if count else "rest"
            text = "Any number of words, joined by dots. With none, the dot beside it is absent too."
        else:
            words.append(word)
            continue
        parameters[name] = {"description": text}
        words.append(f"{{{name}}}")
    return ".".join(words), parameters


def _server(url: str) -> dict[str, Any]:
    """Return the server of a backend, without user name, password, options and the folders of a file."""
    scheme, _, rest = redact_url(url).partition("://")
    parts = urlsplit(url)
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # what of it is a password is unclear
        return {"host": "unknown", "protocol": scheme}
    host, slash, path = rest.rpartition("@")[2].partition("/")
    server = {"host": host or "localhost", "protocol": scheme}
    if not host:
        path = path.rpartition("/")[2]
    return {**server, "pathname": f"/{json_safe(path)}"} if slash and path else server


def _headers_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {n: {"type": "string", "description": text} for n, text in _HEADER_TEXTS.items()},
        "additionalProperties": {"type": "string"},
    }
