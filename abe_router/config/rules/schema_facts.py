"""What the keywords of a schema say by themselves, so far as that is plain to see."""

from __future__ import annotations

from typing import Any


def types_of(schema: dict[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows; none when that is not plain to see."""
    if "format" in schema and schema.get("type") == "string":
        return frozenset() if schema["format"] in {"decimal", "duration"} else frozenset({"string"})
    if schema.keys() & {"$ref", "$dynamicRef"}:
        return frozenset()
    if "anyOf" in schema and "type" not in schema:
        each = [types_of(form) if isinstance(form, dict) else frozenset() for form in schema["anyOf"]]
        return frozenset().union(*each) if all(each) else frozenset()
    said = schema.get("type")
    return frozenset([said] if isinstance(said, str) else said or ())


def properties_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schemas of the members that it names."""
    return {} if "$ref" in schema else schema.get("properties") or {}


def forbids(schema: dict[str, Any], name: str) -> bool:
    """Say whether an object that satisfies it has no member of that name, for sure."""
    if "$ref" in schema or schema.get("additionalProperties") is not False:
        return False
    return name not in properties_of(schema) and "patternProperties" not in schema
