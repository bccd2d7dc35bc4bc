"""Moves schemas into one document, such as an AsyncAPI document, as components that refer to each other.

A reference inside a component counts from the root of that document, so each reference is rewritten. What a
reference leads to becomes a component of its own. The components are of draft 7, which readers of AsyncAPI
know. A schema with a keyword that draft 7 cannot express is of draft 2020-12, and so is all it refers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import msgspec

from abe_router.messages.pointer import parse
from abe_router.schema.dialect import SCHEMA_URIS
from abe_router.schema.folder import INLINE
from abe_router.schema.ignored import CHECKING, IN_LIST, IN_MEMBERS, IN_VALUE
from abe_router.schema.index import DYNAMIC_ANCHORS, SchemaIndex, Subschema
from abe_router.schema.schema import Schema
from abe_router.schema.translation import Draft, translate

#: What JSON Schemas of draft 2020-12 are called in AsyncAPI. Draft 7 is its own language.
FORMAT_2020 = "application/schema+json;version=2020-12"
#: Keywords without an equivalent in draft 7.
_ONLY_2020 = frozenset({"unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains"})
#: Keywords that only say where a schema is. All references to them are rewritten.
_ADDRESSES = frozenset(
    {"$schema", "$anchor", "$vocabulary", "$defs", "definitions", *DYNAMIC_ANCHORS.values()}
)
_REFERENCES = ("$ref", *DYNAMIC_ANCHORS)
#: Names that AsyncAPI gives another meaning in a schema, or whose value it restricts more than JSON Schema.
_RESERVED = frozenset({"schema", "schemaFormat", "externalDocs"})
_FORMS: Mapping[str, type] = {
    "examples": list,
    "deprecated": bool,
    "readOnly": bool,
    "writeOnly": bool,
    "discriminator": str,
    "$comment": str,
    "contentEncoding": str,
    "contentMediaType": str,
}
#: What a reference may stand beside in every draft, because it checks nothing.
_ANNOTATIONS = frozenset({"title", "description", "x-sensitive"})
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class _Whole:
    """A schema to export, with an index of its documents. `draft` is the first that can express it."""

    schema: Schema
    index: SchemaIndex
    draft: Draft
    has_dynamic: bool

    @staticmethod
    def of(schema: Schema) -> _Whole:
        """Look through all documents of a schema."""
        index = schema.index()
        keywords = frozenset().union(*index.every())
        draft: Draft = 2020 if keywords & _ONLY_2020 else 7
        return _Whole(schema, index, draft, bool(keywords & DYNAMIC_ANCHORS.keys()))


@dataclass(frozen=True, slots=True)
class _Source:
    """A subschema to export, with the schema that it comes from and the draft to write."""

    whole: _Whole
    where: Subschema
    draft: Draft


class SchemaExport:
    """Collects the components of a document. `prefix` is the pointer of the object that holds them.

    `unchecked` says which parts of schemas could not be exported, in sentences; such a part accepts
    everything.
    """

    def __init__(self, prefix: str = "#/components/schemas/") -> None:
        self._prefix = prefix
        self._wholes: dict[Schema, _Whole] = {}
        self._sources: dict[str, _Source] = {}
        self._names: dict[tuple[object, ...], str] = {}
        self._identities: dict[Subschema, tuple[object, ...]] = {}
        self._values: dict[str, Any] = {}
        self.unchecked: list[str] = []

    def payload(self, schemas: Iterable[Schema]) -> Any:
        """Return a schema that is satisfied by what satisfies each of several schemas."""
        wholes = []
        for schema in schemas:
            if schema not in self._wholes:
                self._wholes[schema] = _Whole.of(schema)
            wholes.append(self._wholes[schema])
        draft: Draft = 2020 if any(whole.draft == 2020 for whole in wholes) else 7
        parts = [self._reference(_Source(whole, whole.index.root, draft)) for whole in wholes]
        if draft == 2020:
            whole = parts[0] if len(parts) == 1 else {"allOf": parts}
            return {"schemaFormat": FORMAT_2020, "schema": {"$schema": SCHEMA_URIS[2020], **whole}}
        return {} if not parts else parts[0] if len(parts) == 1 else {"allOf": parts}

    def components(self) -> dict[str, Any]:
        """Return the components of everything that was referred to, by name, in the order of their names."""
        while waiting := [name for name in self._sources if name not in self._values]:
            for name in waiting:
                source = self._sources[name]
                value = self._translated(source, name)
                if isinstance(value, bool):
                    value = {} if value else {"not": {}}
                if source.draft == 2020:
                    value = {
                        "schemaFormat": FORMAT_2020,
                        "schema": {"$schema": SCHEMA_URIS[2020], **value},
                    }
                self._values[name] = value
        return dict(sorted(self._values.items()))

    def add(self, name: str, value: Any) -> dict[str, Any]:
        """Add a component of another origin, and return the reference to it."""
        self._values[name] = value
        return {"$ref": f"{self._prefix}{name}"}

    def _reference(self, source: _Source) -> dict[str, Any]:
        where, schema = source.where, source.whole.schema
        document = unquote(schema.name_of(where.document))
        # All inline documents have one URI. And what a dynamic reference leads to depends on the schema that
        # the check begins with.
        root = schema.digest if document == INLINE or source.whole.has_dynamic else ""
        key = (root, *self._identity(where), source.draft)
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = self._free_name(
                schema.name if document == INLINE else document, where.pointer
            )
            self._sources[name] = source
        return {"$ref": f"{self._prefix}{name}{'/schema' if source.draft == 2020 else ''}"}

    def _identity(self, where: Subschema) -> tuple[object, ...]:
        """Return what two equal subschemas have in common, however their document was found."""
        if where not in self._identities:
            text = msgspec.json.encode(where.schema, order="sorted")
            self._identities[where] = (where.base, parse(where.pointer)[-1:], text)
        return self._identities[where]

    def _free_name(self, document: str, pointer: str) -> str:
        """Return a name for a component, made of those of the file and of the definition."""
        file = (document.rpartition("://")[2]).removesuffix(".json").replace("/", ".")
        steps = [step for step in parse(pointer) if step not in IN_MEMBERS or step == "properties"]
        wanted = _NO_NAME.sub("_", ".".join([file, *steps])).strip(".") or "schema"
        name, number = wanted, 1
        while name in self._sources or name in self._values:
            number += 1
            name = f"{wanted}-{number}"
        return name

    def _translated(self, source: _Source, name: str) -> Any:
        """Return a subschema in the draft of its source, with references to components."""
        where = source.where
        if not isinstance(where.schema, dict):
            return where.schema
        references = [
            part
            for keyword in _REFERENCES
            if isinstance(where.schema.get(keyword), str) and _knows(where.draft, keyword)
            for part in [self._resolved(source, keyword, name)]
        ]
        kept: dict[str, Any] = {}
        # Up to draft 7, a reference hides everything beside it.
        alone = bool(references) and where.draft <= 7
        for keyword, value in where.schema.items():
            if keyword in _REFERENCES or keyword in _ADDRESSES or (alone and keyword not in _ANNOTATIONS):
                continue
            if keyword == ("id" if where.draft == 4 else "$id"):
                kept["x-id"] = value
            elif not _knows(where.draft, keyword):
                kept[f"x-{keyword}"] = value
            elif keyword in IN_VALUE | IN_LIST | IN_MEMBERS:
                kept[keyword] = self._below(source, keyword, value, name)
            elif _has_reference(value):  # a reader takes it for a reference
                if keyword in CHECKING:
                    self.unchecked.append(f"`{keyword}` in {name}: its value has a member `$ref`")
            elif keyword in _RESERVED or not isinstance(value, _FORMS.get(keyword, object)):
                kept[f"x-{keyword}"] = value
            else:
                kept[keyword] = value
        return translate(kept, references, where.draft, source.draft)

    def _below(self, source: _Source, keyword: str, value: Any, name: str) -> Any:
        """Return the value of a keyword that has schemas, all of them translated."""

        def child(*steps: str | int) -> Any:
            below = source.whole.index.below(source.where, keyword, *steps)
            return self._translated(replace(source, where=below), name)

        if isinstance(value, list):
            return [child(number) for number in range(len(value))] if keyword in IN_LIST else value
        if isinstance(value, dict) and keyword in IN_MEMBERS:
            return {each: child(each) if _is_schema(part) else part for each, part in value.items()}
        return child() if _is_schema(value) else value

    def _resolved(self, source: _Source, keyword: str, name: str) -> dict[str, Any]:
        """Return the reference to the component that a reference leads to."""
        where, index = source.where, source.whole.index
        text = where.schema[keyword]
        target = index.resolve(where.base, text)
        if target is not None and keyword in DYNAMIC_ANCHORS and isinstance(target.schema, dict):
            anchor = target.schema.get(DYNAMIC_ANCHORS[keyword])
            if anchor and (keyword != "$dynamicRef" or anchor == text.rpartition("#")[2]):
                others = index.dynamic_anchors(anchor)
                # The outermost resource wins, which is that of the schema itself if it has the anchor.
                outermost = [other for other in others if other.base == index.root.base]
                target = (outermost or others)[0] if outermost or len(others) == 1 else None
        if target is None:
            why = "no static target" if keyword in DYNAMIC_ANCHORS else "a target outside the folder"
            self.unchecked.append(f"`{keyword}` to `{text}` in {name}: it has {why}")
            return {}
        return self._reference(replace(source, where=target))


def _knows(draft: int, keyword: str) -> bool:
    """Return whether a keyword means something in a draft, or in no draft at all."""
    first, last = CHECKING.get(keyword, (draft, draft))
    return first <= draft <= last


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _has_reference(value: Any) -> bool:
    """Return whether data has an object with a member `$ref` that is text, as a reference is written."""
    if isinstance(value, dict):
        return isinstance(value.get("$ref"), str) or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))
