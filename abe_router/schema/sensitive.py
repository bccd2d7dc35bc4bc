"""Which values a schema calls sensitive, with `x-sensitive: true`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from jsonschema_rs import ReferencingError, Registry, Resolver

from abe_router.schema.dialect import subschemas

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
_DYNAMIC = {"$dynamicRef": "$dynamicAnchor", "$recursiveRef": "$recursiveAnchor"}

#: A schema and the resolver for the references in it.
Place = tuple[Mapping[str, Any], Resolver]


class Sensitivity:
    """Finds out whether a place in a payload lies in a value that a schema calls sensitive.

    A value is sensitive when any subschema that may apply to it says so, on whichever branch: what is
    hidden without need does less harm than what is shown.
    """

    def __init__(self, documents: Mapping[str, Any], base: str, registry: Registry) -> None:
        """Take the documents by URI, the URI of the first of them, and the registry that holds them all."""
        self._base, self._registry = base, registry
        self._documents = documents
        self._targets: dict[tuple[str, str], Place | None] = {}

    @cached_property
    def _any(self) -> bool:
        return any(s.get("x-sensitive") is True for d in self._documents.values() for _, s in subschemas(d))

    def depth(self, path: Sequence[str | int]) -> int | None:
        """Return the length of the shortest prefix of `path` that leads to a sensitive value, or None."""
        if not self._any:
            return None
        places = list(self._together([self._target(self._registry.resolver(self._base), "")]))
        for depth in range(len(path) + 1):
            if any(schema.get("x-sensitive") is True for schema, _ in places):
                return depth
            if depth < len(path):
                step = path[depth]
                inner = ((s, r) for schema, r in places for s in _children(schema, step))
                places = list(self._together(_place(s, r) for s, r in inner))
        return None

    def _together(self, places: Any) -> Iterator[Place]:
        """Yield the schemas and all that apply to the same value because of them."""
        waiting, seen = [place for place in places if place is not None], set[int]()
        while waiting:
            schema, resolver = waiting.pop()
            if id(schema) in seen:
                continue
            seen.add(id(schema))
            yield schema, resolver
            waiting += (p for s in _alongside(schema) if (p := _place(s, resolver)) is not None)
            for key in ("$ref", *_DYNAMIC):
                reference = schema.get(key)
                if isinstance(reference, str) and (target := self._target(resolver, reference)) is not None:
                    waiting.append(target)
                if isinstance(reference, str) and key in _DYNAMIC:
                    waiting += self._anchored(_DYNAMIC[key], reference.rpartition("#")[2])

    def _target(self, resolver: Resolver, reference: str) -> Place | None:
        """Return what a reference leads to; the same object each time, so that loops end."""
        key = (resolver.base_uri, reference)
        if key not in self._targets:
            try:
                resolved = resolver.lookup(reference)
                contents = resolved.contents
                self._targets[key] = (contents, resolved.resolver) if isinstance(contents, dict) else None
            except (ReferencingError, ValueError):
                self._targets[key] = None
        return self._targets[key]

    def _anchored(self, keyword: str, name: str) -> Iterator[Place]:
        """Yield every schema that a dynamic reference may lead to, whatever way it was come by."""
        for uri, document in self._documents.items():
            for _, schema in subschemas(document):
                if schema.get(keyword) == (name or True):
                    yield schema, self._registry.resolver(uri)


def _place(schema: Any, resolver: Resolver) -> Place | None:
    """Return the schema with its resolver, which an `$id` of its own changes."""
    if not isinstance(schema, dict):
        return None
    identifier = schema.get("$id", schema.get("id"))
    if isinstance(identifier, str) and not identifier.startswith("#"):
        with suppress(ReferencingError, ValueError):
            resolver = resolver.lookup(identifier).resolver
    return schema, resolver


def _alongside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the subschemas that apply to the same value."""
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from schema[key]
    for key in _SINGLE:
        yield schema.get(key)
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            yield from schema[key].values()


def _children(schema: Mapping[str, Any], step: str | int) -> Iterator[Any]:
    """Yield the subschemas that may apply to the member or item `step`."""
    if isinstance(step, int):
        listed = schema.get("prefixItems", schema.get("items"))
        if isinstance(listed, list) and step < len(listed):
            yield listed[step]
        else:
            yield from (schema.get("items"), schema.get("additionalItems"))
        yield from (schema.get("contains"), schema.get("unevaluatedItems"))
        return
    named = schema.get("properties", {}).get(step)
    patterned = [s for p, s in schema.get("patternProperties", {}).items() if _may_match(p, step)]
    yield named
    yield from patterned
    # A pattern that only may match leaves the rest in question too.
    if named is None:
        yield from (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))


def _may_match(pattern: str, name: str) -> bool:
    """Say whether the pattern may match; when Python's dialect cannot tell, it may."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return True
