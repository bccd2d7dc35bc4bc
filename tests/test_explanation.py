"""Explanations find every violation under any member name, within a budget."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import ClassVar
from unittest.mock import patch

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.messages.message import MAX_BYTES, encode
from abe_router.messages.pointer import parse
from abe_router.schema import Schema, SchemaFolder, explanation
from abe_router.schema.explanation import NOT_DESCRIBED, Explainer

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
#: Names that a validator may confuse with an index, or escape wrongly in a pointer.
ODD = ("", "0", "1", "007", "+1", "+0", "-1", "a/b", "~", "~1", "a", "é")
SECRET = "hunter2-4711"
#: The budget of an explanation: seconds of processor time, and bytes of Python's memory.
MOST_SECONDS, MOST_BYTES = 0.05, 50 * 1024 * 1024
if sys.gettrace() is not None:  # coverage, which slows every line down
    MOST_SECONDS *= 4


def inline(document: object) -> Schema:
    return SchemaFolder(Path("/nowhere")).inline(document, "test")


def resolve(payload: object, pointer: str) -> object:
    """Return the value of a pointer, by the type of each container alone."""
    for step in parse(pointer):
        payload = payload[int(step)] if isinstance(payload, list) else payload[step]
    return payload


# --- any schema, any payload

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
PATTERNS = ("a", "^a", "^$", "^[0-9]+$", "^\\W", "1")
SCALARS = (None, True, False, -3, 0, 1, 2, 3, 0.5, 1.0, "", "a", "aa", SECRET, "2020-01-01")
REFERENCES = ("#/$defs/x", "#/$defs/y", "#x", "other", "other#/$defs/1")


class Draw:
    """Draws schemas and payloads from one seed, for a draft."""

    def __init__(self, seed: int, draft: int = 4) -> None:
        self._random, self._draft = random.Random(seed), draft
        self._refers = False

    def value(self, depth: int = 3) -> object:
        kind = self._random.random()
        if depth == 0 or kind < 0.4:
            return self._random.choice(SCALARS)
        if kind < 0.6:
            return [self.value(depth - 1) for _ in range(self._random.randrange(5))]
        return {name: self.value(depth - 1) for name in self._random.sample(ODD, self._random.randrange(5))}

    def document(self) -> dict[str, object]:
        """Return a schema with definitions and references to them."""
        identifier = "$id" if self._draft else "id"
        anchor = {"$anchor": "x"} if self._draft >= 3 else {identifier: "#x"}
        definitions = {
            "x": {"allOf": [self.schema(2)], **anchor},
            "y": self.schema(3),
            "z": {identifier: "other", "type": "object", "$defs": {"1": self.schema(2)}},
        }
        self._refers = True
        return {
            "$schema": DRAFTS[self._draft],
            identifier: "https://example.com/a",
            "allOf": [self.schema(4), self.schema(4)],
            "properties": {"1": {"$ref": "#"}, "x": {"$ref": "https://example.com/a"}},
            "$defs" if self._draft >= 3 else "definitions": definitions,
        }

    def schema(self, depth: int) -> object:
        if depth == 0 or self._random.random() < 0.15:
            return self._random.random() < 0.8 if self._draft else {}
        known = [keyword for keyword in self._KEYWORDS if self._KEYWORDS[keyword][0] <= self._draft]
        if not self._refers:
            known.remove("$ref")
        chosen = self._random.sample(known, self._random.randrange(1, 5))
        return {keyword: self._KEYWORDS[keyword][1](self, depth - 1) for keyword in chosen} | (
            {"maximum": 1} if not self._draft and "exclusiveMaximum" in chosen else {}
        )

    def _some(self, make, least: int = 0) -> list[object]:
        return [make() for _ in range(self._random.randrange(least, 3))]

    def _names(self) -> list[str]:
        return self._random.sample(ODD, self._random.randrange(1, 3))

    def _members(self, depth: int) -> dict[str, object]:
        return {name: self.schema(depth) for name in self._names()}

    def _listed(self, depth: int) -> list[object]:
        return self._some(lambda: self.schema(depth), 1)

    def _items(self, depth: int) -> object:
        return self._listed(depth) if self._draft < 4 and self._random.random() < 0.4 else self.schema(depth)

    def _reference(self) -> str:
        reference = self._random.choice(REFERENCES)
        local = reference.startswith("#/") and self._draft < 3
        return reference.replace("$defs", "definitions") if local else reference

    def _one(self, *choices: object) -> object:
        return self._random.choice(choices)

    #: Each keyword: the first draft that has it, as an index of DRAFTS, and a function that draws its value.
    _KEYWORDS: ClassVar = {
        "type": (0, lambda self, _: self._random.choice([*TYPES, ["string", "object"], ["array", "null"]])),
        "enum": (0, lambda self, _: [self.value(1) for _ in range(2)] + ["enum"]),
        "const": (1, lambda self, _: self.value(1)),
        "minimum": (0, lambda self, _: self._one(-3, 0, 2)),
        "exclusiveMaximum": (0, lambda self, _: self._one(0, 2) if self._draft else True),
        "multipleOf": (0, lambda self, _: self._one(1, 2, 0.5)),
        "minLength": (0, lambda self, _: self._one(1, 2)),
        "pattern": (0, lambda self, _: self._random.choice(PATTERNS)),
        "format": (0, lambda self, _: self._one("date-time", "email", "no-such-format")),
        "minItems": (0, lambda self, _: self._one(1, 2)),
        "uniqueItems": (0, lambda self, _: True),
        "maxProperties": (0, lambda self, _: self._one(1, 2)),
        "required": (0, lambda self, _: self._names()),
        "properties": (0, _members),
        "patternProperties": (0, lambda self, depth: {self._one(*PATTERNS): self.schema(depth)}),
        "additionalProperties": (0, schema),
        "propertyNames": (1, schema),
        "dependencies": (0, lambda self, depth: {self._one(*ODD): self._one(self.schema(depth), ["a"])}),
        "dependentRequired": (3, lambda self, _: {self._one(*ODD): self._names()}),
        "dependentSchemas": (3, _members),
        "items": (0, _items),
        "additionalItems": (0, schema),
        "prefixItems": (4, _listed),
        "contains": (1, schema),
        "minContains": (3, lambda self, _: self._one(0, 2)),
        "maxContains": (3, lambda self, _: self._one(0, 1)),
        "unevaluatedProperties": (3, schema),
        "unevaluatedItems": (3, schema),
        "allOf": (0, _listed),
        "anyOf": (0, _listed),
        "oneOf": (0, _listed),
        "not": (0, schema),
        "if": (2, schema),
        "then": (2, schema),
        "else": (2, schema),
        "$ref": (0, lambda self, _: self._reference()),
        "x-sensitive": (0, lambda self, _: True),
    }


@pytest.mark.parametrize("draft", range(len(DRAFTS)))
@given(seed=st.integers(0, 2**32))
@settings(deadline=None)
def test_pointer_of_every_violation_exists_in_the_payload(draft, seed):
    draw = Draw(seed, draft)
    schema, value = inline(draw.document()), draw.value()
    with patch.multiple(explanation, MAX_SEARCH=10.0, MAX_DESCRIPTION=10.0):
        violations = schema.violations(value)
    assert schema.is_valid(value) == (not violations)
    for violation in violations:
        resolve(value, violation.pointer)
        assert violation.note == ""


# --- what the words say of odd names


@pytest.mark.parametrize("name", ODD)
def test_pointer_of_an_unusual_name_is_exact(name):
    schema = inline({"additionalProperties": {"items": {"additionalProperties": {"type": "integer"}}}})
    value = {"other": [{}], name: [{"x": 1}, {name: "wrong", "y": 2}]}
    (violation,) = schema.violations(value)
    assert resolve(value, violation.pointer) == "wrong"
    assert violation.found == '"wrong"'


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "secret",
    [
        {"x-sensitive": True, "propertyNames": {"maxLength": 3}},
        {"x-sensitive": True, "additionalProperties": {"type": "null"}},
        {"additionalProperties": {"x-sensitive": True, "type": "null"}, "maxProperties": 0},
        {"propertyNames": {"x-sensitive": True, "maxLength": 3}},
        {"propertyNames": {"x-sensitive": True}, "additionalProperties": False},
        {"propertyNames": {"x-sensitive": True}, "additionalProperties": {"type": "null"}},
    ],
)
def test_secret_under_an_unusual_name_is_masked(name, secret):
    violations = inline({"properties": {name: secret}}).violations({name: {SECRET: SECRET}})
    assert violations
    for violation in violations:
        hidden = f"{violation}{violation.schema_pointer}"
        assert f'"{SECRET}"' not in hidden
        if "propertyNames" in secret or "x-sensitive" in secret:
            assert SECRET not in hidden


@pytest.mark.parametrize(("pattern", "name"), [("^\\W", "é"), ("^\\D+$", "٣"), ("^(a+)+$", "a" * 40)])
def test_pattern_masks_the_names_that_the_check_matches(pattern, name):
    document = {"patternProperties": {pattern: {"type": "integer", "x-sensitive": True}}}
    started = thread_time()
    violations = inline(document).violations({name: SECRET})
    assert thread_time() - started < MOST_SECONDS
    assert all(SECRET not in str(violation) for violation in violations)


def test_value_that_takes_too_long_to_mask_is_masked_as_a_whole():
    branches = [{"properties": {f"p{n}": {"x-sensitive": True}}} for n in range(100)]
    schema = inline({"additionalProperties": {"$ref": "#"}, "anyOf": branches})
    value = {f"name {n}": {f"name {m}": 1 for m in range(20)} for n in range(2_000)}
    started = thread_time()
    assert schema.mask(value) == "(masked)"
    assert thread_time() - started < 4 * MOST_SECONDS
    assert schema.mask({"p3": SECRET, "other": {"p4": SECRET}}) == {
        "p3": "(masked)",
        "other": {"p4": "(masked)"},
    }


def test_failed_explanation_shows_only_the_type(monkeypatch):
    def fail(*_):
        raise RecursionError

    monkeypatch.setattr(Explainer, "_explain", fail)
    (violation,) = inline({"type": "null"}).violations({"a": SECRET})
    assert (
        str(violation)
        == f"at (root): schema: expected a value that satisfies it, found object ({NOT_DESCRIBED})"
    )


@pytest.mark.parametrize("error", [RecursionError, MemoryError, KeyError, jsonschema_rs.ValidationError])
def test_failed_explanation_keeps_the_violations_found_before(monkeypatch, error):
    def fail(*_):
        raise error("broken")

    monkeypatch.setattr(explanation.Walk, "matches", fail)
    document = {"properties": {"1": {"type": "null"}}, "patternProperties": {"x": {"type": "null"}}}
    (violation,) = inline(document).violations({"1": 2, "x": 3})
    assert (violation.pointer, violation.note) == ("/1", NOT_DESCRIBED)


# --- the budget

EXPRESSION = {
    "$ref": "#/$defs/e",
    "$defs": {
        "e": {
            "anyOf": [
                {"type": "number"},
                *(
                    {
                        "type": "object",
                        "properties": {
                            "op": {"const": op},
                            "left": {"$ref": "#/$defs/e"},
                            "right": {"$ref": "#/$defs/e"},
                        },
                        "required": ["op", "left", "right"],
                    }
                    for op in ("add", "mul")
                ),
            ]
        }
    },
}
LARGE = {"items": {"type": "object", "required": ["id"], "properties": {"n": {"type": "integer"}}}}
DYNAMIC = {
    "$id": "https://example.com/tree",
    "$dynamicAnchor": "node",
    "properties": {"data": {"type": "integer"}, "children": {"items": {"$dynamicRef": "#node"}}},
}


def expression(depth: int) -> object:
    tree: object = "wrong"
    for _ in range(depth):
        tree = {"op": "add", "left": 1, "right": tree}
    return tree


def nested(depth: int, inner: object, name: str = "a") -> object:
    for _ in range(depth):
        inner = {name: inner}
    return inner


def tree(depth: int) -> object:
    return {"data": "x", "children": [tree(depth - 1), tree(depth - 1)] if depth else []}


#: The slowest known cases: a schema, and a payload within the limits of a message.
WORST = {
    "every item of a large array": ({"items": {"type": "integer"}}, ["x"] * 200_000),
    "the last item of a large array": ({"items": {"type": "integer"}}, [1] * 400_000 + ["x"]),
    "the last of many objects": (LARGE, [{"id": 1, "n": 2}] * 60_000 + [{"id": 1, "n": "x"}]),
    "every member of a large object": (
        {"additionalProperties": {"type": "integer"}},
        {str(n): "x" for n in range(70_000)},
    ),
    "members that are not allowed": ({"additionalProperties": False}, {str(n): 1 for n in range(70_000)}),
    "names that many patterns do not match": (
        {"patternProperties": {f"^{n}x": {} for n in range(50)}, "additionalProperties": False},
        {f"{n}y": 1 for n in range(70_000)},
    ),
    "every name": ({"propertyNames": {"pattern": "^x"}}, {str(n): 1 for n in range(70_000)}),
    "alternatives of arrays": (
        {"anyOf": [{"items": {"type": "string"}}, {"items": {"type": "boolean"}}]},
        [1] * 400_000,
    ),
    "an array of alternatives": (
        {"items": {"$ref": "#/$defs/e"}, "$defs": EXPRESSION["$defs"]},
        [expression(2)] * 8_000,
    ),
    "alternatives within alternatives": (EXPRESSION, expression(120)),
    "a deep value": (
        {
            "$ref": "#/$defs/n",
            "$defs": {"n": {"additionalProperties": {"$ref": "#/$defs/n"}, "type": ["object", "null"]}},
        },
        nested(120, 1),
    ),
    "a deep value with long names": (
        {"additionalProperties": {"$ref": "#"}, "type": "object"},
        nested(120, 1, "n" * 8_000),
    ),
    "errors below a name that fills the payload": (
        {"additionalProperties": {"items": {"type": "null"}}},
        {"n" * 900_000: [1] * 50_000},
    ),
    "a large enum": ({"items": {"enum": [f"value {n}" for n in range(30_000)]}}, ["x"] * 200_000),
    "an enum of objects": ({"items": {"enum": [{"a": n} for n in range(10_000)]}}, [{"a": -1}] * 80_000),
    "a large array that is not unique": ({"uniqueItems": True}, [[n] for n in range(100_000)] + [[1]]),
    "a pattern that backtracks": ({"items": {"pattern": "^(a|aa)+(?=x)$"}}, ["a" * 60] * 10_000),
    "a string that is a megabyte": ({"pattern": "^(a|aa)+(?=x)$"}, "a" * 1_000_000),
    "items that nothing evaluates": (
        {
            "allOf": [{"prefixItems": [{}]}],
            "contains": {"type": "null"},
            "unevaluatedItems": {"type": "null"},
        },
        [1] * 300_000 + [None],
    ),
    "members that nothing evaluates": (
        {"anyOf": [{"patternProperties": {"^x": {}}}], "unevaluatedProperties": False},
        {str(n): 1 for n in range(70_000)},
    ),
    "dynamic references": (DYNAMIC, tree(13)),
    "references without end": ({"allOf": [{"$ref": "#"}, {"type": "null"}]}, [1] * 300_000),
    "exactly one of many": ({"items": {"oneOf": [{"minimum": n} for n in range(100)]}}, [50] * 200_000),
    "secrets": (
        {
            "items": {"allOf": [{"$ref": "#/$defs/s"}] * 20, "type": "null"},
            "$defs": {"s": {"properties": {"a": {"x-sensitive": True, "type": "null"}}}},
        },
        [{"a": "x"}] * 80_000,
    ),
}


@pytest.mark.parametrize("case", WORST)
def test_no_payload_takes_more_than_the_budget_to_explain(case):
    document, value = WORST[case]
    assert len(encode(value)) <= MAX_BYTES
    schema = inline(document)
    assert not schema.is_valid(value)
    tracemalloc.start()
    try:
        explain = schema._explainer.explain
        explain(value)
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    violations = explain(value)
    # The fastest of a few runs: on a busy machine every step takes longer, and so does a garbage collection.
    seconds = min(_seconds(lambda: explain(value)) for _ in range(5))
    assert violations
    assert len(violations) <= explanation.MAX_VIOLATIONS
    resolve(value, violations[0].pointer)
    assert violations[0].note != NOT_DESCRIBED
    assert sum(len(str(violation)) for violation in violations) < 2 * MAX_BYTES
    assert memory < MOST_BYTES
    assert seconds < MOST_SECONDS


def _seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    gc.disable()
    try:
        started = thread_time()
        call()
        return thread_time() - started
    finally:
        gc.enable()
