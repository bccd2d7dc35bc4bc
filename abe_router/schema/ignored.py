"""Keywords that check nothing: misspelt ones, those of another draft, those beside `$ref`.

JSON Schema allows keywords that it does not know. So only what is certainly a mistake is reported: a name
that is spelt almost like a keyword, and a value that looks like the schema of a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from abe_router.messages.pointer import escape
from abe_router.schema.dialect import draft_of
from abe_router.schema.index import own_id
from abe_router.text import counted

#: Unknown names of a document that are compared with keywords. A comparison takes a tenth of a millisecond.
MAX_COMPARED = 1000
#: The keywords that check something, with the first and the last draft that has them.
CHECKING: dict[str, tuple[int, int]] = {
    **dict.fromkeys(
        (
            *("$ref", "type", "enum", "format", "allOf", "anyOf", "oneOf", "not", "dependencies"),
            *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
            *("minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "items"),
            *("minProperties", "maxProperties", "required", "properties", "patternProperties"),
            *("additionalProperties", "x-sensitive"),
        ),
        (4, 2020),
    ),
    **dict.fromkeys(("const", "contains", "propertyNames"), (6, 2020)),
    **dict.fromkeys(("if", "then", "else"), (7, 2020)),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains"), (2019, 2020)),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), (2019, 2020)),
    "prefixItems": (2020, 2020),
    "$dynamicRef": (2020, 2020),
    "$recursiveRef": (2019, 2019),
    "additionalItems": (4, 2019),
}
#: The keywords that only describe, name or hold something.
_DESCRIBING = frozenset(
    {
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$dynamicAnchor",
        "$recursiveAnchor",
        "$vocabulary",
        "$comment",
        "$defs",
    }
    | {"definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"contentEncoding", "contentMediaType", "contentSchema"}
)
KEYWORDS = frozenset(CHECKING) | _DESCRIBING
_DEFINITIONS = frozenset({"$defs", "definitions"})
#: Where a keyword has schemas: as its value, as items of a list, as members of an object.
IN_VALUE = frozenset(
    {"not", "if", "then", "else", "items", "additionalItems", "contains", "propertyNames", "contentSchema"}
    | {"additionalProperties", "unevaluatedItems", "unevaluatedProperties"}
)
IN_LIST = frozenset({"allOf", "anyOf", "oneOf", "items", "prefixItems"})
IN_MEMBERS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)


class Ignored(NamedTuple):
    """A keyword without effect: its pointer in the document, what is wrong, and what to write instead."""

    pointer: str
    message: str
    hint: str


def ignored_keywords(document: Any, *, filters: bool = False) -> list[Ignored]:
    """Return the keywords of a document that certainly should check something, but do not.

    Of several with one cause the first is returned, with the number of the others. `filters` says that it is
    the schema of a filter, which describes nothing: then every unknown keyword is one of them, unless it
    begins with `x-`.
    """
    causes: dict[tuple[str, str], list[Ignored]] = {}
    for each in _ignored(document, filters=filters):
        causes.setdefault((each.message, each.hint), []).append(each)
    found = []
    for first, *others in causes.values():
        more = f", here and in {counted(len(others), 'other place')}" if others else ""
        found.append(first._replace(message=f"{first.message}{more}"))
    return found


def _ignored(document: Any, *, filters: bool) -> Iterator[Ignored]:
    compared = set[str]()
    left = [("", document, draft_of(document), False)]
    while left:
        pointer, schema, draft, named = left.pop()
        if not isinstance(schema, dict):
            continue
        if own_id(schema, draft_of(schema, draft)) is not None:
            draft = draft_of(schema, draft)
        hidden = draft <= 7 and isinstance(schema.get("$ref"), str)
        if hidden:
            yield from _beside_reference(pointer, schema, draft)
        else:
            yield from _of_another_draft(pointer, schema, draft)
            # A definition may be a mere container of others.
            unknown = schema.keys() - KEYWORDS
            if unknown and len(compared) < MAX_COMPARED:
                compared |= unknown
                yield from _unknown(pointer, schema, filters=filters, container=named)
        below = _below(pointer, schema, _DEFINITIONS if hidden else schema.keys())
        left += reversed([(place, inner, draft, keyword in _DEFINITIONS) for keyword, place, inner in below])


def _below(pointer: str, schema: dict[str, Any], keywords: Iterable[str]) -> Iterator[tuple[str, str, Any]]:
    """Yield each schema that one of the keywords has, with the keyword and the pointer of the schema."""
    for keyword in keywords:
        value = schema.get(keyword)
        if keyword in IN_MEMBERS and isinstance(value, dict):
            for name, inner in value.items():
                yield keyword, f"{pointer}/{keyword}/{escape(name)}", inner
        elif keyword in IN_LIST and isinstance(value, list):
            for index, inner in enumerate(value):
                yield keyword, f"{pointer}/{keyword}/{index}", inner
        elif keyword in IN_VALUE:
            yield keyword, f"{pointer}/{keyword}", value


def _beside_reference(pointer: str, schema: dict[str, Any], draft: int) -> Iterator[Ignored]:
    lost = next((name for name in schema if name in CHECKING and name not in {"$ref", "x-sensitive"}), None)
    if lost is not None:
        message = f"keywords beside `$ref` have no effect in {_named(draft)}"
        hint = "put the `$ref` into an `allOf`, or name a later draft in `$schema`"
        yield Ignored(f"{pointer}/{escape(lost)}", message, hint)


def _of_another_draft(pointer: str, schema: dict[str, Any], draft: int) -> Iterator[Ignored]:
    for name in schema:
        first, last = CHECKING.get(name, (draft, draft))
        if not first <= draft <= last:
            message = f"`{name}` has no effect in {_named(draft)}"
            known = f"from {_named(first)} on" if draft < first else f"up to {_named(last)}"
            yield Ignored(f"{pointer}/{escape(name)}", message, f"it is a keyword {known}: change `$schema`")


def _unknown(pointer: str, schema: dict[str, Any], *, filters: bool, container: bool) -> Iterator[Ignored]:
    """Yield the unknown keywords of a schema. Several that look like members are reported as one."""
    unknown = [name for name in islice(schema, MAX_COMPARED) if name not in KEYWORDS]
    members = [name for name in unknown if _is_schema(schema[name])]
    if not filters and (container or len(unknown) < len(schema.keys() - {"$schema"})):
        members = []
    first = members[:1]
    for name in unknown:
        hint = ""
        if (meant := misspelt(name)) in CHECKING and meant not in schema:
            hint = f"did you mean `{meant}`?"
        elif name in first:
            more = ", ..." if len(members) > 1 else ""
            hint = f"write `properties: {{{name}: ...{more}}}` to check members"
        elif filters and name not in members and not name.startswith("x-"):
            hint = "remove it, or write the keyword that you mean"
        if hint:
            message = f"`{name}` is not a keyword of JSON Schema: it checks nothing"
            yield Ignored(f"{pointer}/{escape(name)}", message, hint)


def _is_schema(value: Any) -> bool:
    """Return whether a value looks like the schema of a member."""
    return isinstance(value, dict) and any(keyword in value for keyword in CHECKING)


@lru_cache(maxsize=1024)
def misspelt(name: str) -> str:
    """Return the keyword that a name is a misspelling of, or an empty string.

    One edit is allowed, two for a keyword of more than five characters. An edit inserts, removes or replaces
    a character, or swaps two neighbours. Upper and lower case are the same.
    """
    edits, keyword = min((_edits(name.lower(), keyword.lower()), keyword) for keyword in KEYWORDS)
    named_after = keyword.lower() in name.lower() and edits > 1  # as `tsAdditionalProperties` is
    return keyword if edits <= (1 if len(keyword) <= 5 else 2) and not named_after else ""


def _edits(one: str, other: str) -> int:
    """Return the number of edits from one word to the other."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row, older = row, [i], before
        for j, b in enumerate(other, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (a != b)))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                row[-1] = min(row[-1], older[j - 2] + 1)
        before = last
    return row[-1]


def _named(draft: int) -> str:
    return {2019: "draft 2019-09", 2020: "draft 2020-12"}.get(draft, f"draft {draft}")
