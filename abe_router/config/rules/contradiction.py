"""Contradictions between a handler's annotation and the schemas of its messages.

Only certain contradictions are reported. Of a schema that refers to others, only its own keywords count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from abe_router.config.rules.finding import either
from abe_router.messages.pointer import escape
from abe_router.routing.route import Route

#: Deepest level that is compared, because types may be recursive.
MAX_DEPTH = 8
#: Keywords that may require more members than `required` lists, or make other keywords optional.
_COMPOSING = frozenset(
    {"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "const", "enum"}
    | {"dependentRequired", "dependentSchemas", "dependencies"}
)
#: The types to which pydantic converts text, unless it is strict.
_FROM_TEXT = frozenset({"integer", "number", "boolean"})


class _Part(NamedTuple):
    """A part of a document. It is `whole` if no keyword above it adds a constraint."""

    schema: dict[str, Any]
    whole: bool


class Contradiction(NamedTuple):
    """A value that a handler requires, but its messages need not have. If `total`, none of them has it."""

    message: str
    total: bool = False


def contradictions(route: Route) -> Iterator[Contradiction]:
    """Yield the contradictions of a route."""
    typed = route.handler.payload_type
    if typed is None or typed.schema is None or (typed.each is None and route.batch is not None):
        return
    documents = [c.schema.document for c in route.bindings if c.pattern == route.key]
    if len(documents) != len(route.bindings) or not documents:
        return  # a schema of one key says nothing about all keys that a pattern matches
    if route.when is not None:
        documents.append(route.when.document)
    parts = [_Part(each, whole=not _COMPOSING & each.keys()) for each in documents if isinstance(each, dict)]
    # Without `batch`, an annotated list is that of one payload.
    schema = {"type": "array"} if typed.each is not None and route.batch is None else typed.schema
    yield from _Comparison(typed.schema, lax=typed.lax).at(schema, parts, "", 0)


class _Comparison:
    """Compares the type of a handler with the schemas of its messages. A `lax` type converts scalars."""

    def __init__(self, root: dict[str, Any], *, lax: bool) -> None:
        self._root, self._lax = root, lax

    def at(self, typed: Any, parts: Sequence[_Part], pointer: str, depth: int) -> Iterator[Contradiction]:
        """Yield the contradictions at a pointer and below it."""
        typed = self._resolved(typed)
        # Pydantic also converts numbers to types with a format, such as dates.
        wanted = frozenset() if self._lax and "format" in typed else types_of(typed)
        for part in parts:
            found = types_of(part.schema)
            if wanted and found and not self._meet(wanted, found):
                message = (
                    f"at {pointer or '(root)'} the type needs {either(wanted)}, the schema has"
                    f" {either(found)}"
                )
                yield Contradiction(message, total=not pointer)
                return
        if depth >= MAX_DEPTH or "properties" not in typed or "anyOf" in typed:
            return
        yield from self._required(typed, parts, pointer)
        for name, member in typed["properties"].items():
            below = [
                _Part(each, whole=part.whole and not _COMPOSING & each.keys())
                for part in parts
                if isinstance(each := properties_of(part.schema).get(name), dict)
            ]
            if below:
                yield from self.at(member, below, f"{pointer}/{escape(name)}", depth + 1)

    def _required(
        self, typed: dict[str, Any], parts: Sequence[_Part], pointer: str
    ) -> Iterator[Contradiction]:
        if not any(part.schema.keys() & {"properties", "required"} for part in parts):
            return  # the schema does not mention its members
        required = {name for part in parts for name in part.schema.get("required") or ()}
        for name in typed.get("required", ()):
            if any(forbids(part.schema, name) for part in parts):
                yield Contradiction(f"{_at(pointer, name)}, but the schema does not allow it")
            elif name not in required and all(part.whole for part in parts):
                yield Contradiction(f"{_at(pointer, name)}, but the schema does not")

    def _resolved(self, typed: Any) -> dict[str, Any]:
        """Return a schema that msgspec or pydantic generated, with its reference resolved."""
        if not isinstance(typed, dict):
            return {}
        name = typed.get("$ref", "").removeprefix("#/$defs/")
        return self._root.get("$defs", {}).get(name, {}) if name else typed

    def _meet(self, wanted: frozenset[str], found: frozenset[str]) -> bool:
        numbers = {"integer", "number"}
        if wanted & found or (wanted & numbers and found & numbers):
            return True
        if not self._lax:
            return False
        scalars = _FROM_TEXT | {"string"}
        return bool(wanted & _FROM_TEXT and found & scalars)


def _at(pointer: str, name: str) -> str:
    return f"at {pointer}/{escape(name)} the type requires a value"


def types_of(schema: dict[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows by its own keywords, or an empty set if they set no type."""
    if "format" in schema and schema.get("type") == "string":
        return frozenset() if schema["format"] in {"decimal", "duration"} else frozenset({"string"})
    if schema.keys() & {"$ref", "$dynamicRef"}:
        return frozenset()
    if "anyOf" in schema and "type" not in schema:
        each = [types_of(form) if isinstance(form, dict) else frozenset() for form in schema["anyOf"]]
        return frozenset().union(*each) if all(each) else frozenset()
    said = schema.get("type")
    return frozenset([said] if isinstance(said, str) else said or ())


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of the members that a schema names."""
    return {} if "$ref" in schema else schema.get("properties") or {}


def forbids(schema: dict[str, Any], name: str) -> bool:
    """Return whether no object that satisfies the schema can have a member of that name."""
    if "$ref" in schema or schema.get("additionalProperties") is not False:
        return False
    return name not in properties_of(schema) and "patternProperties" not in schema
