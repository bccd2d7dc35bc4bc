"""The fields of a payload, as the schemas of a key describe them: for a table to read, and an example.

Schemas that apply together are one: their members are joined, and their rules are listed together. What a
list of fields cannot say, such as one of several forms, is a note. The check of a message uses the schemas
themselves, and never these fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from abe_router.messages.pointer import escape, parse
from abe_router.operations.asyncapi import contract_schemas
from abe_router.routing.table import RouteTable
from abe_router.schema.export import SchemaExport
from abe_router.text import shortened

#: Deepest field, and most fields of a payload. Deeper ones are not listed.
DEEPEST, MOST_FIELDS = 8, 400
#: Longest rule, in characters.
LONGEST_RULE = 120
#: Keywords that are shown as rules.
_RULES = (
    *("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
#: Keywords that fields cannot express, and what is said about them.
_NOTES = {
    "oneOf": "one of several forms",
    "anyOf": "any of several forms",
    "not": "some values are excluded",
    "if": "some rules depend on the value",
    "dependencies": "some members need others",
    "dependentRequired": "some members need others",
    "dependentSchemas": "some members need others",
    "patternProperties": "names of members have rules",
    "propertyNames": "names of members have rules",
    "contains": "some items have rules",
}
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


@dataclass(frozen=True)
class PayloadField:
    """One value in a payload. `name` is that of the member, `*` for the items of an array, empty for all.

    `pointer` is a JSON pointer. `kinds` are the JSON types that it may have; none means any. `choices` are
    the values that it may have, if they are listed. `default` is UNSET if there is none. `members` are
    those of an object and `item` any item of an array. `is_open` says whether other members may exist.
    """

    name: str
    pointer: str
    kinds: tuple[str, ...] = ()
    is_required: bool = False
    description: str = ""
    rules: tuple[str, ...] = ()
    choices: tuple[Any, ...] = ()
    default: Any = msgspec.UNSET
    is_sensitive: bool = False
    members: tuple[PayloadField, ...] = ()
    item: PayloadField | None = None
    is_open: bool = True

    def walk(self) -> Iterator[PayloadField]:
        """Yield the field and all fields below it."""
        yield self
        for member in self.members:
            yield from member.walk()
        if self.item is not None:
            yield from self.item.walk()


def payload_field(table: RouteTable, key: str) -> PayloadField:
    """Return the payload of a key, or of a pattern, as the field with the empty pointer.

    Raise KeyInvalid if the key is malformed.
    """
    export = SchemaExport()
    payload = export.payload(contract_schemas(table, key))
    whole = {"components": {"schemas": export.components()}}
    return _Reader(whole).read(payload.get("schema", payload))


def example_of(about: PayloadField) -> Any:
    """Return a value of the shape of a field: defaults, first choices, and what is required."""
    if about.default is not msgspec.UNSET:
        return about.default
    if about.choices:
        return about.choices[0]
    match about.kinds[:1]:
        case ("array",):
            return [] if about.item is None else [example_of(about.item)]
        case ("string",):
            return ""
        case ("integer" | "number",):
            return 0
        case ("boolean",):
            return False
        case ("null",):
            return None
    return {
        member.name: example_of(member)
        for member in about.members
        if member.is_required or member.default is not msgspec.UNSET
    }


class _Reader:
    """Reads fields from the components of one document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._count = 0

    def read(self, schema: Any, name: str = "", pointer: str = "", *, required: bool = False) -> PayloadField:
        """Return a field that satisfies a schema."""
        return self._read([schema], name, pointer, 0, required=required)

    def _read(
        self, schemas: Sequence[Any], name: str, pointer: str, depth: int, *, required: bool
    ) -> PayloadField:
        self._count += 1
        parts = list(self._together(schemas))
        kinds = _kinds(parts)
        members: tuple[PayloadField, ...] = ()
        item: PayloadField | None = None
        if depth < DEEPEST:
            if kinds in ((), ("object",)):
                members = tuple(self._members(parts, pointer, depth))
            if kinds == ("array",):
                item = self._item(parts, pointer, depth)
        if members and not kinds:
            kinds = ("object",)
        return PayloadField(
            name=name,
            pointer=pointer,
            kinds=kinds,
            is_required=required,
            description=next((p["description"] for p in parts if isinstance(p.get("description"), str)), ""),
            rules=tuple(_rules(parts)),
            choices=_choices(parts),
            default=next((part["default"] for part in parts if "default" in part), msgspec.UNSET),
            is_sensitive=any(part.get("x-sensitive") is True for part in parts),
            members=members,
            item=item,
            is_open=not any(
                part.get(keyword) is False or part.get(keyword) == {"not": {}}
                for part in parts
                for keyword in ("additionalProperties", "unevaluatedProperties")
            ),
        )

    def _members(
        self, parts: Sequence[Mapping[str, Any]], pointer: str, depth: int
    ) -> Iterator[PayloadField]:
        named: dict[str, list[Any]] = {}
        for part in parts:
            properties = part.get("properties")
            for name, schema in properties.items() if isinstance(properties, dict) else ():
                named.setdefault(name, []).append(schema)
        required = {
            name
            for part in parts
            if isinstance(part.get("required"), list)
            for name in part["required"]
            if isinstance(name, str)
        }
        for name in sorted(required - named.keys()):
            named[name] = []
        for name, schemas in named.items():
            if self._count >= MOST_FIELDS:
                return
            below = f"{pointer}/{escape(name)}"
            yield self._read(schemas, name, below, depth + 1, required=name in required)

    def _item(self, parts: Sequence[Mapping[str, Any]], pointer: str, depth: int) -> PayloadField | None:
        if any(isinstance(part.get("items"), list) or "prefixItems" in part for part in parts):
            return None  # each item has its own schema
        schemas = [part["items"] for part in parts if "items" in part]
        if self._count >= MOST_FIELDS:
            return None
        return self._read(schemas, "*", f"{pointer}/*", depth + 1, required=True)

    def _together(self, schemas: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
        """Yield schemas and all that apply to the same value because of them."""
        waiting, seen = list(reversed(schemas)), set[int]()
        while waiting:
            schema = waiting.pop()
            if not isinstance(schema, dict) or id(schema) in seen:
                continue
            seen.add(id(schema))
            yield schema
            beside = list(schema["allOf"]) if isinstance(schema.get("allOf"), list) else []
            for keyword in ("anyOf", "oneOf"):
                if (only := _only_form(schema.get(keyword))) is not None:
                    beside.append(only)
            if isinstance(reference := schema.get("$ref"), str):
                beside.append(self._resolved(reference))
            waiting += reversed(beside)

    def _resolved(self, reference: str) -> Any:
        found: Any = self._document
        for step in parse(reference.removeprefix("#")):
            found = found.get(step) if isinstance(found, dict) else None
        return found


def _only_form(forms: Any) -> Any:
    """Return the form of a value that may also be null, or None if there are more forms."""
    if not isinstance(forms, list):
        return None
    rest = [form for form in forms if form != {"type": "null"}]
    return rest[0] if len(rest) == 1 else None


def _kinds(parts: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the types that all parts allow; none if they say nothing."""
    found: set[str] | None = None
    for part in parts:
        said = part.get("type")
        given = {said} if isinstance(said, str) else set(said) if isinstance(said, list) else None
        if given is None:
            continue
        wide = given | ({"integer"} if "number" in given else set())
        found = wide if found is None else found & wide
    if found is None:
        if any(isinstance(part.get("properties"), dict) for part in parts):
            return ("object",)
        return ("array",) if any(isinstance(part.get("items"), dict) for part in parts) else ()
    if "number" in found:  # which includes integers
        found.discard("integer")
    return tuple(kind for kind in _TYPES if kind in found)


def _choices(parts: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    for part in parts:
        if "const" in part:
            return (part["const"],)
        if isinstance(part.get("enum"), list):
            return tuple(part["enum"])
    return ()


def _rules(parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for keyword in _RULES:
        for value in dict.fromkeys(_shown(part[keyword]) for part in parts if keyword in part):
            yield f"{keyword} {value}"
    keywords = [keyword for part in parts for keyword in part if _only_form(part[keyword]) is None]
    yield from dict.fromkeys(_NOTES[keyword] for keyword in keywords if keyword in _NOTES)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shortened(text, LONGEST_RULE)
