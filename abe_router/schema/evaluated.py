"""The members and items that a schema has evaluated, for `unevaluatedProperties` and `unevaluatedItems`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from abe_router.schema.index import DYNAMIC_ANCHORS
from abe_router.schema.walk import Visit, Walk

#: Names of members, or indexes of items.
Evaluated = set[str | int]


def evaluated_names(walk: Walk, visit: Visit) -> Evaluated:
    """Return the names of the members that a subschema, and all that apply beside it, have evaluated."""
    return _evaluated(walk, visit, _names_of, "")


def evaluated_items(walk: Walk, visit: Visit) -> Evaluated:
    """Return the indexes of the items that a subschema, and all that apply beside it, have evaluated."""
    return _evaluated(walk, visit, _items_of, "")


def _evaluated(walk: Walk, visit: Visit, own: Callable[[Walk, Visit], Evaluated], last: str) -> Evaluated:
    """Return what a subschema and all that apply beside it evaluate.

    `own` returns what the keywords of one subschema evaluate. `last` is the keyword that evaluates the rest;
    it is empty for the subschema that asks, whose own keyword does not count.
    """
    schema = visit.where.schema
    walk.tick()
    if not isinstance(schema, dict):
        return Evaluated()
    if last in schema:
        return set(visit.value) if isinstance(visit.value, dict) else set(range(len(visit.value)))
    found = own(walk, visit)
    last = "unevaluatedProperties" if isinstance(visit.value, dict) else "unevaluatedItems"
    for inner in _beside(walk, visit):
        found |= _evaluated(walk, inner, own, last)
    return found


def _beside(walk: Walk, visit: Visit) -> Iterator[Visit]:
    """Yield the visits of the same value by the subschemas that apply to it and that it satisfies."""
    schema = visit.where.schema
    for keyword in ("$ref", *DYNAMIC_ANCHORS):
        if keyword in schema and (rule := walk.rule_of(keyword, visit.where.draft)):
            yield from (step for step in rule(walk, visit, keyword) if isinstance(step, Visit))
    for keyword in ("allOf", "anyOf", "oneOf"):
        for index in range(len(schema.get(keyword, ()))):
            inner = walk.below(visit, keyword, index)
            if walk.valid(inner):
                yield inner
    if "if" in schema:
        condition = walk.below(visit, "if")
        holds = walk.valid(condition)
        if holds:
            yield condition
        if (branch := "then" if holds else "else") in schema:
            yield walk.below(visit, branch)
    for name in schema.get("dependentSchemas", ()):
        if name in visit.value:
            yield walk.below(visit, "dependentSchemas", name)


def _names_of(walk: Walk, visit: Visit) -> Evaluated:
    schema, value = visit.where.schema, visit.value
    if "additionalProperties" in schema:
        return set(value)
    found: Evaluated = set(value.keys() & schema.get("properties", {}).keys())
    for pattern in schema.get("patternProperties", ()):
        found |= {name for name in value if walk.matches(visit, pattern, name)}
    return found


def _items_of(walk: Walk, visit: Visit) -> Evaluated:
    schema, value, newest = visit.where.schema, visit.value, visit.where.draft >= 2020
    items = schema.get("items")
    listed = items if isinstance(items, list) else schema.get("prefixItems", ()) if newest else ()
    rest = "items" if newest or not isinstance(items, list) else "additionalItems"
    if rest in schema:
        return set(range(len(value)))
    found: Evaluated = set(range(min(len(listed), len(value))))
    if newest and "contains" in schema:
        inner = walk.below(visit, "contains")
        for index, item in enumerate(value):
            walk.tick()
            if walk.valid(inner._replace(value=item)):
                found.add(index)
    return found
