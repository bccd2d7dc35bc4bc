"""The paths that a schema names: the members that it lists or requires, and the items that it describes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from abe_router.messages.pointer import escape
from abe_router.schema.index import SchemaIndex, Subschema
from abe_router.schema.paths import list_of, map_of

#: Most paths that `named_paths` yields, and most steps of one.
MAX_PATHS, MAX_STEPS = 500, 16


class NamedPath(NamedTuple):
    """A path that a schema names, and the pointers to the keywords of its own document that name it.

    `is_sensitive` says whether the schema marks it as `x-sensitive`, `is_bare` whether it says nothing else
    about it.
    """

    steps: tuple[str | None, ...]
    pointers: tuple[str, ...]
    is_sensitive: bool
    is_bare: bool


#: The steps of a path, the subschemas that apply there, and the pointers that name it.
_Waiting = tuple[tuple[str | None, ...], list[Subschema], list[str]]


def named_paths(index: SchemaIndex) -> Iterator[NamedPath]:
    """Yield the paths that a schema names, on whichever branch, the outermost first: at most 500."""
    waiting: list[_Waiting] = [((), [index.root], [])]
    seen = set[frozenset[int]]()
    for count, (steps, group, pointers) in enumerate(waiting):
        if count > MAX_PATHS:
            return
        together = list(index.in_place(group))
        if steps:
            sensitive = any(sub.schema.get("x-sensitive") is True for sub in together)
            yield NamedPath(steps, tuple(pointers), sensitive, all(_says_nothing(sub) for sub in together))
        # A recursive schema leads to the same subschemas again.
        key = frozenset(id(sub.schema) for sub in together)
        if len(steps) >= MAX_STEPS or len(waiting) > MAX_PATHS or (key and key in seen):
            continue
        seen.add(key)
        following: dict[str | None, tuple[list[Subschema], list[str]]] = {}
        for sub in together:
            for step, child, place in _following(index, sub):
                subs, found = following.setdefault(step, ([], []))
                subs += [] if child is None else [child]
                found += [f"{sub.pointer}/{place}"] if sub.document == index.root.document else []
        waiting += [((*steps, step), subs, found) for step, (subs, found) in following.items()]


def _following(index: SchemaIndex, sub: Subschema) -> Iterator[tuple[str | None, Subschema | None, str]]:
    """Yield each step that the keywords of a subschema name, with what applies there and its place."""
    for name in map_of(sub.schema, "properties"):
        yield name, index.below(sub, "properties", name), f"properties/{escape(name)}"
    for number, name in enumerate(list_of(sub.schema, "required")):
        yield name, None, f"required/{number}"
    for keyword in ("items", "additionalItems", "contains", "unevaluatedItems"):
        if isinstance(sub.schema.get(keyword), dict):
            yield None, index.below(sub, keyword), keyword
    for keyword in ("prefixItems", "items"):
        for number in range(len(list_of(sub.schema, keyword))):
            yield str(number), index.below(sub, keyword, number), f"{keyword}/{number}"


def _says_nothing(sub: Subschema) -> bool:
    return set(sub.schema) <= {"x-sensitive", "title", "description", "$comment"}
