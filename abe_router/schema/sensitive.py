"""Finds and masks the values that a schema marks as sensitive with `x-sensitive: true`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from abe_router.schema.index import DYNAMIC_ANCHORS, SchemaIndex, Subschema
from abe_router.schema.mismatch import Path
from abe_router.schema.validators import Validators

#: What is shown in place of a sensitive value.
MASKED = "(masked)"
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
#: What applies to every item of an array, and what to those that no list of schemas names.
_ALL = ("contains", "unevaluatedItems")
_REST = ("items", "additionalItems", *_ALL)
#: The subschemas that apply below others, by their identities and the step.
_Known = dict[tuple[tuple[int, ...], str | int], Sequence[Subschema]]


class Sensitivity:
    """Finds out whether a value in a payload is part of a sensitive value.

    A value is sensitive when any subschema that may apply to it says so, on whichever branch. Hiding a value
    without need does less harm than showing it.
    """

    def __init__(self, index: SchemaIndex, validators: Validators) -> None:
        self._index, self._validators = index, validators
        #: Whether the schema marks anything as sensitive.
        self.any = any(schema.get("x-sensitive") is True for schema in index.every())

    def masked(self, path: Path, look: Callable[[], None]) -> Path | None:
        """Return the path of the outermost sensitive value on the way, None when there is none.

        `look` is called now and then, and may raise to end the search.
        """
        if not self.any:
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

    def marks(self, steps: Sequence[str]) -> bool:
        """Return whether what lies at these steps, the tokens of a pointer, is part of a sensitive value."""
        applicable = list(self._together([self._index.root]))
        for step in steps:
            if any(map(_is_sensitive, applicable)) or self._names_are_sensitive(applicable):
                return True
            taken: tuple[str | int, ...] = (step, int(step)) if step.isascii() and step.isdigit() else (step,)
            below = [sub for each in applicable for one in taken for sub in self._children(each, one)]
            applicable = list(self._together(below))
        return any(map(_is_sensitive, applicable))

    def mask(self, value: Any, look: Callable[[], None]) -> Any:
        """Return the value with MASKED in place of each sensitive part. The value itself stays as it is.

        `look` is called now and then, and may raise to end the search.
        """
        if not self.any:
            return value
        return self._mask(value, list(self._together([self._index.root])), look, {})

    def _mask(
        self, value: Any, applicable: Sequence[Subschema], look: Callable[[], None], known: _Known
    ) -> Any:
        if not applicable:
            return value
        if any(map(_is_sensitive, applicable)):
            return MASKED
        if isinstance(value, dict) and value:
            if self._names_are_sensitive(applicable):
                return MASKED
            members = value.items()
            return {
                name: self._mask(member, self._below(applicable, name, look, known), look, known)
                for name, member in members
            }
        if isinstance(value, list):
            listed = max(map(_listed, applicable))
            return [
                self._mask(item, self._below(applicable, min(at, listed), look, known), look, known)
                for at, item in enumerate(value)
            ]
        return value

    def _below(
        self, applicable: Sequence[Subschema], step: str | int, look: Callable[[], None], known: _Known
    ) -> Sequence[Subschema]:
        """Return the subschemas that may apply to a member or an item; each answer is computed once."""
        key = (tuple(map(id, applicable)), step)
        found = known.get(key)
        if found is None:
            look()
            below = [sub for each in applicable for sub in self._children(each, step)]
            found = known[key] = list(self._together(below))
        return found

    def _has_secret_names(self, node: Path) -> bool:
        """Return whether the names of an object's members are sensitive."""
        return self._names_are_sensitive(node.applicable or ())

    def _names_are_sensitive(self, applicable: Sequence[Subschema]) -> bool:
        names = [
            self._index.below(sub, "propertyNames") for sub in applicable if "propertyNames" in sub.schema
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


def _listed(sub: Subschema) -> int:
    """Return how many items of an array have a schema of their own."""
    listings = (sub.schema.get(name) for name in ("prefixItems", "items"))
    return max((len(listed) for listed in listings if isinstance(listed, list)), default=0)


def _is_sensitive(sub: Subschema) -> bool:
    return sub.schema.get("x-sensitive") is True
