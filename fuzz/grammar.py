"""Makes JSON values and JSON Schemas of a grammar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fuzz.mutate import ODD_VALUES

#: Names of members: ordinary ones, and those that look like an index, a pointer or nothing.
NAMES = ("id", "total", "items", "a", "b", "0", "1", "", "~/", "é", "$ref", "type")
DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")


def json_value(random: Random, depth: int = 4, leaves: Sequence[Any] = ODD_VALUES) -> Any:
    """Return a JSON value that nests at most `depth` levels."""
    choice = random.random()
    if depth == 0 or choice < 0.4:
        return random.choice(leaves)
    if choice < 0.7:
        return {
            random.choice(NAMES): json_value(random, depth - 1, leaves) for _ in range(random.randrange(5))
        }
    return [json_value(random, depth - 1, leaves) for _ in range(random.randrange(5))]


def json_schema(random: Random, depth: int = 3) -> dict[str, Any]:
    """Return a schema with its draft, sometimes with definitions that refer to each other."""
    draft = random.choice(DRAFTS)
    place = "$defs" if "2019" in draft or "2020" in draft else "definitions"
    schema = _subschema(random, depth, draft, place)
    if isinstance(schema, bool):
        schema = {"not": {}} if not schema else {}
    if random.random() < 0.4:
        schema[place] = {name: _subschema(random, depth - 1, draft, place) for name in ("x", "y")}
    return {"$schema": draft, **schema}


def _subschema(random: Random, depth: int, draft: str, place: str) -> Any:
    is_modern = "2019" in draft or "2020" in draft

    def below() -> Any:
        return _subschema(random, depth - 1, draft, place)

    def several() -> list[Any]:
        return [below() for _ in range(random.randint(1, 3))]

    if random.random() < 0.05 and "draft-04" not in draft:
        return random.random() < 0.7
    makers: dict[str, Callable[[], Any]] = {
        "type": lambda: random.choice([*_TYPES, ["string", "null"], ["integer", "object"]]),
        "enum": lambda: random.sample([1, "a", None, True, [], {"a": 1}, 2, "b"], random.randint(1, 4)),
        "minimum": lambda: random.choice((-1, 0, 1, 5, 0.5)),
        "maximum": lambda: random.choice((0, 1, 10, 0.1)),
        "multipleOf": lambda: random.choice((1, 2, 5)),
        "minLength": lambda: random.randrange(4),
        "maxLength": lambda: random.randrange(4),
        "pattern": lambda: random.choice(("^a", "b$", "^[a-z]+$", "[0-9]{2}", ".", "^$")),
        "minItems": lambda: random.randrange(3),
        "maxItems": lambda: random.randrange(3),
        "uniqueItems": lambda: random.random() < 0.7,
        "required": lambda: random.sample(NAMES, random.randint(1, 2)),
        "minProperties": lambda: random.randrange(3),
        "maxProperties": lambda: random.randrange(3),
        "x-sensitive": lambda: random.random() < 0.5,
    }
    if "draft-04" not in draft:
        makers |= {
            "const": lambda: random.choice((1, "a", None, [1], {"a": 1})),
            "exclusiveMinimum": lambda: random.choice((0, 1)),
        }
    if depth > 0:
        makers |= {
            "properties": lambda: {random.choice(NAMES): below() for _ in range(random.randint(1, 3))},
            "patternProperties": lambda: {random.choice(("^a", "^[0-9]$", ".")): below()},
            "additionalProperties": below,
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": below,
            "items": below,
        }
        if "draft-04" not in draft:
            makers |= {"propertyNames": below, "contains": below}
        if "draft-04" not in draft and "draft-06" not in draft:
            makers |= {"if": below, "then": below, "else": below}
        if is_modern:
            makers |= {
                "dependentSchemas": lambda: {random.choice(NAMES): below()},
                "dependentRequired": lambda: {random.choice(NAMES): [random.choice(NAMES)]},
                "unevaluatedProperties": below,
                "minContains": lambda: random.randrange(3),
            }
        if "2020" in draft:
            makers |= {"prefixItems": several, "unevaluatedItems": below}
    chosen = random.sample(list(makers), min(len(makers), random.choice((1, 1, 2, 3, 5))))
    schema = {keyword: makers[keyword]() for keyword in chosen}
    if random.random() < 0.1:
        schema["$ref"] = random.choice(("#", f"#/{place}/x", f"#/{place}/y", "#/properties/a", "other.json"))
    return schema
