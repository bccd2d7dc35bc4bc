"""What each keyword of JSON Schema finds wrong with a value, and which subschemas it applies to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from abe_router.schema.evaluated import evaluated_items, evaluated_names
from abe_router.schema.index import DYNAMIC_ANCHORS
from abe_router.schema.mismatch import (
    MAX_LISTED,
    Mismatch,
    Path,
    alternatives,
    closest,
    cut,
    expected,
    found,
    unquoted,
)
from abe_router.schema.validators import EXCLUSIVE
from abe_router.schema.walk import Found, Rule, Visit, Walk
from abe_router.text import counted


def rule_of(keyword: str, draft: int) -> Rule | None:
    """Return how a keyword is walked through in a draft, None when the draft does not know it."""
    rule, first, last = _RULES.get(keyword, (None, 0, 0))
    return rule if first <= draft <= last else None


#: What is found where a pattern cannot be matched.
GIVES_UP = "a string on which the pattern gives up: it backtracks too much (the schema's fault)"


def _alone(walk: Walk, visit: Visit, keyword: str) -> Found:
    """Walk through a keyword that needs no other subschema."""
    schema, value = visit.where.schema, visit.value
    if keyword in _SLOW:
        walk.look()
    argument, instead = schema[keyword], ""
    if keyword == "pattern" and isinstance(value, str):
        gives_up = walk.validators.gives_up(visit.where, value)
        if gives_up is None:
            return
        instead = GIVES_UP if gives_up else ""
    elif walk.validators.keyword(visit.where, keyword, value):
        return
    if visit.where.draft == 4 and schema.get(EXCLUSIVE.get(keyword, "")) is True:
        keyword = EXCLUSIVE[keyword]
    words, bare = expected(keyword, argument), unquoted(keyword, argument)
    yield Mismatch(visit.path, keyword, visit.where, value, words, bare, instead)


def _reference(walk: Walk, visit: Visit, keyword: str) -> Found:
    base, reference = visit.where.base, visit.where.schema[keyword]
    if not isinstance(reference, str):
        return
    if keyword in DYNAMIC_ANCHORS:
        target = walk.index.resolve_dynamic(visit.scope, base, keyword, reference)
    else:
        target = walk.index.resolve(base, reference)
    if target is not None:
        scope = visit.scope
        if scope and target.base not in scope:  # the outermost resource of a base is the one that counts
            scope = (*scope, target.base)
        yield visit._replace(where=target, scope=scope)
    elif not walk.validators.keyword(visit.where, keyword, visit.value):  # a meta-schema
        yield Mismatch(visit.path, keyword, visit.where, visit.value, f"a match of `{cut(reference)}`")


def _all_of(walk: Walk, visit: Visit, keyword: str) -> Found:
    for index in range(len(visit.where.schema[keyword])):
        yield walk.below(visit, keyword, index)


def _alternatives(walk: Walk, visit: Visit, keyword: str) -> Found:
    count = len(visit.where.schema[keyword])
    matching = []
    for index in range(count):
        if walk.valid(walk.below(visit, keyword, index)):
            matching.append(index)
            if keyword == "anyOf":
                return
    if len(matching) == 1:
        return
    if matching:
        which = f"{', '.join(map(str, matching[:-1]))} and {matching[-1]}"
        words = "exactly one alternative to match"
        yield Mismatch(visit.path, keyword, visit.where, visit.value, words, found=f"that {which} do")
        return
    walk.suspects(visit, keyword, f"a match of at least one of {count} alternatives")
    branches = walk.compare(visit, keyword)
    if (meant := closest(branches, visit.path.depth)) is not None:
        yield walk.below(visit, keyword, meant)
    else:
        words = alternatives(branches, visit.path.depth)
        yield Mismatch(visit.path, keyword, visit.where, visit.value, words, branches=branches)


def _not(walk: Walk, visit: Visit, keyword: str) -> Found:
    if walk.valid(walk.below(visit, keyword)):
        words = "no match of the schema under `not`"
        yield Mismatch(visit.path, keyword, visit.where, visit.value, words)


def _if(walk: Walk, visit: Visit, keyword: str) -> Found:
    schema = visit.where.schema
    if not schema.keys() & {"then", "else"}:
        return
    branch = "then" if walk.valid(walk.below(visit, keyword)) else "else"
    if branch in schema:
        yield walk.below(visit, branch)


def _required(walk: Walk, visit: Visit, keyword: str) -> Found:
    if isinstance(visit.value, dict):
        yield from _lacking(walk, visit, keyword, visit.where.schema[keyword])


def _lacking(walk: Walk, visit: Visit, keyword: str, names: Collection[str]) -> Found:
    for name in names:
        walk.tick()
        if name not in visit.value:
            words = f"property `{cut(name)}`"
            yield Mismatch(visit.path, keyword, visit.where, visit.value, words)


def _dependent(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, dict):
        return
    for name, needs in visit.where.schema[keyword].items():
        walk.tick()
        if name not in visit.value:
            continue
        if isinstance(needs, dict | bool):
            yield walk.below(visit, keyword, name)
        else:
            yield from _lacking(walk, visit, keyword, [needs] if isinstance(needs, str) else needs)


def _properties(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, dict):
        return
    named = visit.where.schema[keyword]
    for name in min(named, visit.value, key=len):
        walk.tick()
        if name in named and name in visit.value:
            where = walk.index.below(visit.where, keyword, name)
            yield Visit(where, visit.value[name], Path(visit.path, name), visit.scope)


def _pattern_properties(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, dict):
        return
    for pattern in visit.where.schema[keyword]:
        where = walk.index.below(visit.where, keyword, pattern)
        names = [name for name in visit.value if walk.matches(visit, pattern, name)]
        yield from walk.each(visit, where, names, keyword)


def _additional_properties(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, dict):
        return
    schema = visit.where.schema
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    rest = (
        name
        for name in visit.value
        if name not in named and not any(walk.matches(visit, pattern, name) for pattern in patterns)
    )
    yield from _not_allowed(walk, visit, keyword, rest)


def _not_allowed(walk: Walk, visit: Visit, keyword: str, names: Iterable[str]) -> Found:
    """Walk through the members that no other keyword allows."""
    if visit.where.schema[keyword] is not False:
        yield from walk.each(visit, walk.index.below(visit.where, keyword), list(names), keyword)
        return
    for name in names:
        words = f"no property `{cut(name)}`"
        yield Mismatch(
            visit.path, keyword, visit.where, visit.value, words, "no further property", member=name
        )


def _property_names(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, dict):
        return
    where = walk.index.below(visit.where, keyword)
    if where.schema is True:
        return
    for name in visit.value:
        walk.tick()
        for inner in walk.run(Visit(where, name, visit.path, visit.scope)):
            words, bare = f"property names with {inner.expected}", "other property names"
            if inner.keyword == "false":
                words = "no property"
            yield Mismatch(visit.path, keyword, visit.where, visit.value, words, bare, found(name))
            break


def _prefix_items(walk: Walk, visit: Visit, keyword: str) -> Found:
    if isinstance(visit.value, list):
        for index in range(min(len(visit.where.schema[keyword]), len(visit.value))):
            where = walk.index.below(visit.where, keyword, index)
            yield Visit(where, visit.value[index], Path(visit.path, index), visit.scope)


def _items(walk: Walk, visit: Visit, keyword: str) -> Found:
    schema = visit.where.schema
    if isinstance(schema[keyword], list):
        yield from _prefix_items(walk, visit, keyword)
    elif isinstance(visit.value, list):
        first = len(schema.get("prefixItems", ())) if visit.where.draft >= 2020 else 0
        where = walk.index.below(visit.where, keyword)
        yield from walk.each(visit, where, range(first, len(visit.value)), keyword)


def _additional_items(walk: Walk, visit: Visit, keyword: str) -> Found:
    schema, value = visit.where.schema, visit.value
    if not isinstance(value, list) or not isinstance(schema.get("items"), list):
        return
    first = len(schema["items"])
    if schema[keyword] is False and len(value) > first:
        words = f"at most {counted(first, 'item')}"
        yield Mismatch(visit.path, keyword, visit.where, value, words)
    elif schema[keyword] is not False:
        where = walk.index.below(visit.where, keyword)
        yield from walk.each(visit, where, range(first, len(value)), keyword)


def _contains(walk: Walk, visit: Visit, keyword: str) -> Found:
    schema, value = visit.where.schema, visit.value
    if not isinstance(value, list):
        return
    least = schema.get("minContains", 1) if visit.where.draft >= 2019 else 1
    most = schema.get("maxContains") if visit.where.draft >= 2019 else None
    inner, count = walk.below(visit, keyword), 0
    for index, item in enumerate(value):
        walk.tick()
        count += walk.valid(inner._replace(value=item, path=Path(visit.path, index)))
        if most is None and count >= least:
            return
        if most is not None and count > most:
            break
    if most is not None and count > most:
        keyword = "maxContains"
    elif count >= least:
        return
    elif "minContains" in schema and visit.where.draft >= 2019:
        keyword = "minContains"
    yield Mismatch(visit.path, keyword, visit.where, value, "other items matching `contains`")


def _unevaluated_properties(walk: Walk, visit: Visit, keyword: str) -> Found:
    if isinstance(visit.value, dict):
        known = evaluated_names(walk, visit)
        yield from _not_allowed(walk, visit, keyword, [name for name in visit.value if name not in known])


def _unevaluated_items(walk: Walk, visit: Visit, keyword: str) -> Found:
    if not isinstance(visit.value, list):
        return
    known = evaluated_items(walk, visit)
    rest = [index for index in range(len(visit.value)) if index not in known]
    if visit.where.schema[keyword] is not False:
        yield from walk.each(visit, walk.index.below(visit.where, keyword), rest, keyword)
    elif rest:
        words = f"no item at {', '.join(map(str, rest[:MAX_LISTED]))}"
        yield Mismatch(visit.path, keyword, visit.where, visit.value, words)


#: Keywords that need no other subschema. One that a draft does not know is satisfied by everything.
_ALONE = (
    *("type", "enum", "const", "minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    *("format", "contentEncoding", "contentMediaType"),
)
#: Those of them that may take long.
_SLOW = frozenset({"enum", "const", "pattern", "format", "uniqueItems", "contentMediaType"})
#: How each keyword is walked through, with the first and the last draft that jsonschema-rs knows it in.
_RULES: dict[str, tuple[Rule | None, int, int]] = {
    "$ref": (_reference, 4, 2020),
    "$recursiveRef": (_reference, 2019, 2019),
    "$dynamicRef": (_reference, 2020, 2020),
    "allOf": (_all_of, 4, 2020),
    "anyOf": (_alternatives, 4, 2020),
    "oneOf": (_alternatives, 4, 2020),
    "not": (_not, 4, 2020),
    "if": (_if, 7, 2020),
    "required": (_required, 4, 2020),
    "dependencies": (_dependent, 4, 2020),
    "dependentRequired": (_dependent, 2019, 2020),
    "dependentSchemas": (_dependent, 2019, 2020),
    "properties": (_properties, 4, 2020),
    "patternProperties": (_pattern_properties, 4, 2020),
    "additionalProperties": (_additional_properties, 4, 2020),
    "propertyNames": (_property_names, 6, 2020),
    "prefixItems": (_prefix_items, 2020, 2020),
    "items": (_items, 4, 2020),
    "additionalItems": (_additional_items, 4, 2019),
    "contains": (_contains, 6, 2020),
    "unevaluatedProperties": (_unevaluated_properties, 2019, 2020),
    "unevaluatedItems": (_unevaluated_items, 2019, 2020),
    # In draft 4 they are flags of `minimum` and `maximum`.
    "exclusiveMinimum": (_alone, 6, 2020),
    "exclusiveMaximum": (_alone, 6, 2020),
    **dict.fromkeys(_ALONE, (_alone, 4, 2020)),
}
