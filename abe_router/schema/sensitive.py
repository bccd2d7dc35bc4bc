"""Finds the values that a schema marks as sensitive with `x-sensitive: true`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from abe_router.schema.index import DYNAMIC_ANCHORS, SchemaIndex, Subschema
from abe_router.schema.mismatch import Path
from abe_router.schema.validators import Validators

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
#: What applies to every item of an array, and what to those that no list of schemas names.
_ALL = ("contains", "unevaluatedItems")
_REST = ("items", "additionalItems", *_ALL)


class Sensitivity:
    """Finds out whether a value in a payload is part of a sensitive value.

    A value is sensitive when any subschema that may apply to it says so, on whichever branch. Hiding a value
    without need does less harm than showing it.
    """

    def __init__(self, index: SchemaIndex, validators: Validators) -> None:
        self._index, self._validators = index, validators
        self._any = any(schema.get("x-sensitive") is True for schema in index.every())

    def masked(self, path: Path, look: Callable[[], None]) -> Path | None:
        """Return the path of the outermost sensitive value on the way, None when there is none.

        `look` is called now and then, and may raise to end the search.
        """
        if not self._any:
            return None
        way = path.from_root()
        for number, node in enumerate(way):
            if node.applicable is None:
                look()
                outer = node.parent.applicable if node.parent is not None else None
                inner = (
                    [self._index.root]
                    if outer is None
                    else [sub for each in outer for sub in self._children(each, node.step)]
                )
                node.applicable = list(self._together(inner))
            if any(_is_sensitive(sub) for sub in node.applicable):
                return node
            below = way[number + 1] if number + 1 < len(way) else None
            if below is not None and isinstance(below.step, str) and self._has_secret_names(node):
                return node
        return None

    def _has_secret_names(self, node: Path) -> bool:
        """Return whether the names of an object's members are sensitive."""
        names = [
            self._index.below(sub, "propertyNames")
            for sub in node.applicable or ()
            if "propertyNames" in sub.schema
        ]
        return any(_is_sensitive(sub) for sub in self._together(names))

    def _together(self, first: Iterable[Subschema]) -> Iterator[Subschema]:
        """Yield the subschemas and all that apply to the same value because of them."""
        waiting, seen = list(first), set[int]()
        while waiting:
            sub = waiting.pop()
            if not isinstance(sub.schema, dict) or id(sub.schema) in seen:
                continue
            seen.add(id(sub.schema))
            yield sub
            waiting += self._beside(sub)
            for keyword in ("$ref", *DYNAMIC_ANCHORS):
                reference = sub.schema.get(keyword)
                if not isinstance(reference, str):
                    continue
                if (target := self._index.resolve(sub.base, reference)) is not None:
                    waiting.append(target)
                if keyword in DYNAMIC_ANCHORS:  # whichever way leads to it
                    waiting += self._index.dynamic_anchors(reference.rpartition("#")[2] or True)

    def _beside(self, sub: Subschema) -> Iterator[Subschema]:
        """Yield the subschemas below one that apply to the same value."""
        for keyword in _LISTS:
            if isinstance(listed := sub.schema.get(keyword), list):
                yield from (self._index.below(sub, keyword, index) for index in range(len(listed)))
        for keyword in _SINGLE:
            if keyword in sub.schema:
                yield self._index.below(sub, keyword)
        for keyword in _MAPS:
            if isinstance(mapped := sub.schema.get(keyword), dict):
                yield from (self._index.below(sub, keyword, name) for name in mapped)

    def _children(self, sub: Subschema, step: str | int) -> Iterator[Subschema]:
        """Yield the subschemas that may apply to a member or an item."""
        schema = sub.schema
        if isinstance(step, int):
            listing = "prefixItems" if "prefixItems" in schema else "items"
            listed = schema.get(listing)
            if isinstance(listed, list) and step < len(listed):
                yield self._index.below(sub, listing, step)
            for keyword in _ALL if isinstance(listed, list) and step < len(listed) else _REST:
                if isinstance(schema.get(keyword), dict):
                    yield self._index.below(sub, keyword)
            return
        named = schema.get("properties", {})
        if step in named:
            yield self._index.below(sub, "properties", step)
        for pattern in schema.get("patternProperties", {}):
            if self._validators.pattern(pattern, sub.draft, step):
                yield self._index.below(sub, "patternProperties", pattern)
        if step not in named:
            for keyword in ("additionalProperties", "unevaluatedProperties"):
                if keyword in schema:
                    yield self._index.below(sub, keyword)


def _is_sensitive(sub: Subschema) -> bool:
    return sub.schema.get("x-sensitive") is True
