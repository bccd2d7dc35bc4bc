"""Finds and masks the values that a schema marks as sensitive with `x-sensitive: true`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from abe_router.schema.index import SchemaIndex, Subschema
from abe_router.schema.mismatch import Path
from abe_router.schema.validators import Validators

#: What is shown in place of a sensitive value.
MASKED = "(masked)"
#: What applies to every item of an array, and what to those that no list of schemas names.
_ALL = ("contains", "unevaluatedItems")
_REST = ("items", "additionalItems", *_ALL)
#: The keywords that list names of members, that describe members, and that describe items.
_NAMED = ("properties", "patternProperties")
_MEMBERS = (*_NAMED, "additionalProperties", "unevaluatedProperties", "propertyNames")
_ITEMS = ("prefixItems", *_REST)
#: The subschemas that apply below others, by their identities and the step.
_Known = dict[tuple[tuple[int, ...], str | int], Sequence[Subschema]]
#: Returns what is shown in place of a part. The schema marks the part, or else the part lacks its shape.
_Hide = Callable[[Any, bool], Any]


class Sensitivity:
    """Finds out whether a value in a payload is part of a sensitive value.

    A value is sensitive when any subschema that may apply to it says so, on whichever branch. Hiding a value
    without need does less harm than showing it.

    A part bears a sensitive value when a subschema that may apply to it, or one below, is sensitive. Such a
    part is masked as a whole if it does not have the shape that its subschemas describe: it is of a type that
    none of them names, it has members or items that they forbid, or it has other members and lacks a
    required one that bears a sensitive value. A valid value is masked in its sensitive parts alone.
    """

    def __init__(self, index: SchemaIndex, validators: Validators) -> None:
        self._index, self._validators = index, validators
        self._bearing: dict[int, bool] = {}
        #: Whether the schema marks anything as sensitive.
        self.any = any(schema.get("x-sensitive") is True for schema in index.every())
        #: The names of members that the schema writes itself.
        self.names = frozenset(
            name for schema in index.every() for name in schema.get("properties", ()) if isinstance(name, str)
        )

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
                node.applicable = list(self._index.in_place(inner))
            if any(_is_sensitive(sub) for sub in node.applicable):
                return node
            below = way[number + 1] if number + 1 < len(way) else None
            if below is not None and isinstance(below.step, str) and self._has_secret_names(node):
                return node
        return None

    def marks(self, steps: Sequence[str]) -> bool:
        """Return whether what lies at these steps, the tokens of a pointer, is part of a sensitive value."""
        applicable = list(self._index.in_place([self._index.root]))
        for step in steps:
            if any(map(_is_sensitive, applicable)) or self._names_are_sensitive(applicable):
                return True
            taken: tuple[str | int, ...] = (step, int(step)) if step.isascii() and step.isdigit() else (step,)
            below = [sub for each in applicable for one in taken for sub in self._children(each, one)]
            applicable = list(self._index.in_place(below))
        return any(map(_is_sensitive, applicable))

    def mask(self, value: Any, look: Callable[[], None]) -> Any:
        """Return the value with MASKED in place of each sensitive part. The value itself stays as it is.

        `look` is called now and then, and may raise to end the search.
        """
        return self._hidden(value, look, lambda _part, _is_marked: MASKED)

    def parts(self, value: Any, look: Callable[[], None]) -> list[Any] | None:
        """Return the sensitive parts of a value, None if a part without its shape may hide one.

        `look` is as in `mask`.
        """
        found: list[Any] = []
        is_readable = True

        def hide(part: Any, is_marked: bool) -> Any:
            nonlocal is_readable
            is_readable = is_readable and is_marked
            found.append(part)

        self._hidden(value, look, hide)
        return found if is_readable else None

    def _hidden(self, value: Any, look: Callable[[], None], hide: _Hide) -> Any:
        """Return a value with what `hide` returns in place of each part that is masked."""
        known: _Known = {}

        def shown(value: Any, applicable: Sequence[Subschema]) -> Any:
            if not applicable:
                return value
            if any(map(_is_sensitive, applicable)):
                return hide(value, True)
            if self._is_misshapen(value, applicable, look):
                return hide(value, False)
            if isinstance(value, dict) and value:
                if self._names_are_sensitive(applicable):
                    return hide(value, True)
                return {
                    name: shown(member, self._below(applicable, name, look, known))
                    for name, member in value.items()
                }
            if isinstance(value, list):
                listed = max(map(_listed, applicable))
                return [
                    shown(item, self._below(applicable, min(at, listed), look, known))
                    for at, item in enumerate(value)
                ]
            return value

        return shown(value, list(self._index.in_place([self._index.root]))) if self.any else value

    def _below(
        self, applicable: Sequence[Subschema], step: str | int, look: Callable[[], None], known: _Known
    ) -> Sequence[Subschema]:
        """Return the subschemas that may apply to a member or an item; each answer is computed once."""
        key = (tuple(map(id, applicable)), step)
        found = known.get(key)
        if found is None:
            look()
            below = [sub for each in applicable for sub in self._children(each, step)]
            found = known[key] = list(self._index.in_place(below))
        return found

    def masks_found(self, path: Path, value: Any, look: Callable[[], None]) -> bool:
        """Return whether a value at a path that `masked` knows is hidden, for what it is found to be."""
        around = path if path.applicable or path.parent is None else path.parent
        if around is not path:  # its schema is `false`, or none: what it is part of decides
            return any(self._bears(sub, look) for sub in around.applicable or ())
        return self._is_misshapen(value, path.applicable or (), look)

    def _is_misshapen(self, value: Any, applicable: Sequence[Subschema], look: Callable[[], None]) -> bool:
        """Return whether a value bears a sensitive part by its schemas and does not have their shape."""
        if value is None or value == {} or value == []:
            return False
        bearing = [sub for sub in applicable if self._bears(sub, look)]
        if not bearing:
            return False
        if isinstance(value, dict) and any(map(_describes_members, bearing)):
            return self._has_strange_members(value, applicable, look)
        if isinstance(value, list) and any(map(_describes_items, bearing)):
            listed = max(map(_listed, applicable))
            rest = [child for sub in applicable for child in self._children(sub, listed)]
            return len(value) > listed and not any(isinstance(child.schema, dict) for child in rest)
        kind = _kind(value)
        return not any(_names_type(sub, kind) for sub in applicable)

    def _has_strange_members(
        self, value: dict[str, Any], applicable: Sequence[Subschema], look: Callable[[], None]
    ) -> bool:
        """Return whether members without a schema are forbidden, or a required sensitive one is absent."""
        strange = False
        for name in value:
            children = [child for sub in applicable for child in self._children(sub, name)]
            is_named = any(name in sub.schema.get("properties", {}) for sub in applicable)
            if is_named or any(isinstance(child.schema, dict) for child in children):
                continue
            if any(child.schema is False for child in children):
                return True
            strange = True
        return strange and any(self._lacks(value, sub, look) for sub in applicable)

    def _lacks(self, value: dict[str, Any], sub: Subschema, look: Callable[[], None]) -> bool:
        """Return whether a required member that bears a sensitive value is absent."""
        required = sub.schema.get("required", ())
        return isinstance(required, list) and any(
            name not in value and self._bears(self._index.below(sub, "properties", name), look)
            for name in sub.schema.get("properties", {})
            if name in required
        )

    def _bears(self, sub: Subschema, look: Callable[[], None]) -> bool:
        """Return whether a subschema, or any that may apply below it, is sensitive."""
        known = self._bearing.get(id(sub.schema))
        if known is None:
            waiting, seen, known = [sub], set[int](), False
            while waiting and not known:
                look()
                for each in self._index.in_place([waiting.pop()]):
                    if id(each.schema) not in seen:
                        seen.add(id(each.schema))
                        known = known or _is_sensitive(each)
                        waiting += self._every_child(each)
            self._bearing[id(sub.schema)] = known
        return known

    def _every_child(self, sub: Subschema) -> Iterator[Subschema]:
        """Yield the subschemas that apply to members, to their names, and to items."""
        for keyword in (*_MEMBERS, *_ITEMS):
            match sub.schema.get(keyword):
                case dict() as named if keyword in _NAMED:
                    yield from (self._index.below(sub, keyword, name) for name in named)
                case dict():
                    yield self._index.below(sub, keyword)
                case list() as listed:
                    yield from (self._index.below(sub, keyword, at) for at in range(len(listed)))

    def _has_secret_names(self, node: Path) -> bool:
        """Return whether the names of an object's members are sensitive."""
        return self._names_are_sensitive(node.applicable or ())

    def _names_are_sensitive(self, applicable: Sequence[Subschema]) -> bool:
        names = [
            self._index.below(sub, "propertyNames") for sub in applicable if "propertyNames" in sub.schema
        ]
        return any(_is_sensitive(sub) for sub in self._index.in_place(names))

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


def _describes_members(sub: Subschema) -> bool:
    return any(keyword in sub.schema for keyword in _MEMBERS)


def _describes_items(sub: Subschema) -> bool:
    return any(keyword in sub.schema for keyword in _ITEMS)


def _kind(value: Any) -> str:
    """Return the JSON type of a value; every number is a `number`."""
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean"}
    return kinds.get(type(value), "number")


def _names_type(sub: Subschema, kind: str) -> bool:
    """Return whether a subschema names a type as one that the value may have."""
    said = sub.schema.get("type")
    types = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    return kind in types or (kind == "number" and "integer" in types)
