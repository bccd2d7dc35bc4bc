"""Says what a schema says in the keywords of another draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from abe_router.schema.validators import EXCLUSIVE

#: The drafts that are written.
Draft = Literal[7, 2020]


def translate(
    schema: Mapping[str, Any], references: Sequence[Mapping[str, Any]], source: int, target: Draft
) -> dict[str, Any]:
    """Return a schema of the draft `source` in that of `target`. Its subschemas are translated already.

    `references` are schemas that apply besides it. All keywords of `schema` are known to its draft.
    """
    found, extra = dict(schema), [dict(each) for each in references]
    _free_references(found)
    if source == 4:
        _set_bounds(found)
    if source >= 2020 > target:
        _list_items(found)
    elif target >= 2020 > source:
        _prefix_items(found)
    if target == 7:
        _join_dependencies(found, extra)
    elif "dependencies" in found:
        _split_dependencies(found, extra)
    if len(extra) == 1 and "$ref" in extra[0] and (not found or target >= 2019):
        return extra[0] | found
    if extra := [each for each in extra if each]:
        found["allOf"] = [*found.get("allOf", []), *extra]
    return found


def _free_references(schema: dict[str, Any]) -> None:
    """Write a property named `$ref` as a pattern, because readers take its object for a reference."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and "$ref" in properties:
        rest = dict(properties)
        part, pattern = rest.pop("$ref"), r"^\$ref$"
        patterns = dict(schema.get("patternProperties", {}))
        patterns[pattern] = {"allOf": [patterns[pattern], part]} if pattern in patterns else part
        schema |= {"properties": rest, "patternProperties": patterns}


def _set_bounds(schema: dict[str, Any]) -> None:
    """Replace the flags of draft 4 that exclude a bound by the excluded bound."""
    for bound, flag in EXCLUSIVE.items():
        if isinstance(excluded := schema.pop(flag, None), bool) and excluded and bound in schema:
            schema[flag] = schema.pop(bound)


def _list_items(schema: dict[str, Any]) -> None:
    """Call `prefixItems` by its name before draft 2020-12, and with it `items`."""
    if "prefixItems" in schema:
        rest = schema.pop("items", None)
        schema["items"] = schema.pop("prefixItems")
        if rest is not None:
            schema["additionalItems"] = rest


def _prefix_items(schema: dict[str, Any]) -> None:
    """Call a list of `items` by its name since draft 2020-12, and with it `additionalItems`."""
    rest = schema.pop("additionalItems", None)
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if rest is not None:
            schema["items"] = rest


def _join_dependencies(schema: dict[str, Any], extra: list[dict[str, Any]]) -> None:
    """Write `dependentRequired` and `dependentSchemas` as the `dependencies` that they came from."""
    for keyword in ("dependentRequired", "dependentSchemas"):
        if keyword in schema:
            value = schema.pop(keyword)
            if "dependencies" in schema:
                extra.append({"dependencies": value})
            else:
                schema["dependencies"] = value


def _split_dependencies(schema: dict[str, Any], extra: list[dict[str, Any]]) -> None:
    """Write `dependencies` as the two keywords that draft 2020-12 has for it."""
    dependencies = schema.pop("dependencies")
    named = {name: part for name, part in dependencies.items() if isinstance(part, list | str)}
    parts = {
        "dependentRequired": {n: [p] if isinstance(p, str) else p for n, p in named.items()},
        "dependentSchemas": {n: p for n, p in dependencies.items() if n not in named},
    }
    for keyword, value in parts.items():
        if value and keyword in schema:
            extra.append({keyword: value})
        elif value:
            schema[keyword] = value
