"""What a schema says about a path: named, open, not named, impossible."""

from __future__ import annotations

import os
import random
from time import thread_time

import pytest

from abe_router.errors import SchemaInvalid
from abe_router.messages.pointer import join, parse
from abe_router.schema import SchemaFolder
from abe_router.schema.dialect import SCHEMA_URIS
from abe_router.schema.named_paths import MAX_PATHS, named_paths
from abe_router.schema.paths import UNDECIDED, PathKind

OPEN, UNNAMED, NAMED, IMPOSSIBLE = PathKind
CLOSED = {"type": "object", "additionalProperties": False}
TREE = {**CLOSED, "properties": {"name": {}, "below": {"type": "array", "items": {"$ref": "#"}}}}


@pytest.fixture
def folder(tmp_path):
    return SchemaFolder(tmp_path)


def answer(folder, schema, pointer, **options):
    return folder.inline(schema, "s").path(parse(pointer), thread_time() + 60, **options)


def of_draft(number, schema):
    return {"$schema": SCHEMA_URIS[number], **schema}


@pytest.mark.parametrize(
    ("schema", "pointer", "kind"),
    [
        (True, "/a", OPEN),
        (False, "/a", IMPOSSIBLE),
        ({"type": "object"}, "/a", OPEN),
        ({"type": ["string", "null"]}, "/a", IMPOSSIBLE),
        ({"properties": {"b": {}}}, "/a", UNNAMED),
        ({"properties": {"a": True}}, "/a", NAMED),
        ({"properties": {"a": False}}, "/a", IMPOSSIBLE),
        ({"properties": {"a": {}}}, "/a/b", OPEN),
        ({"properties": {"a": {"type": "string"}}}, "/a/b", IMPOSSIBLE),
        ({"required": ["a"]}, "/a", NAMED),
        ({**CLOSED, "properties": {"b": {}}}, "/a", IMPOSSIBLE),
        ({**CLOSED, "patternProperties": {"^x-": {}}}, "/x-a", NAMED),
        ({**CLOSED, "patternProperties": {"^x-": {}}}, "/a", IMPOSSIBLE),
        ({"additionalProperties": {"type": "string"}}, "/a", NAMED),
        ({"additionalProperties": {"type": "string"}}, "/a/b", IMPOSSIBLE),
        ({"properties": {"b": {}}, "additionalProperties": {}}, "/a", OPEN),
        ({"maxProperties": 0}, "/0", OPEN),
        ({"type": "object", "maxProperties": 0}, "/a", IMPOSSIBLE),
        ({"type": "object", "propertyNames": {"enum": ["b"]}}, "/a", IMPOSSIBLE),
        ({"type": "object", "propertyNames": {"pattern": "^b"}}, "/a", IMPOSSIBLE),
        (TREE, "/below/0/below/7/name", NAMED),
        (TREE, "/below/0/below/7/nme", IMPOSSIBLE),
        (TREE, "/below/name", IMPOSSIBLE),
        ({"$ref": "#"}, "/a", OPEN),
        ({"allOf": [{"properties": {"b": {}}}, {"properties": {"a": {}}}]}, "/a", NAMED),
        ({"allOf": [{"properties": {"a": {}}}, {**CLOSED, "properties": {"b": {}}}]}, "/a", IMPOSSIBLE),
        ({"anyOf": [{**CLOSED, "properties": {"b": {}}}, {"properties": {"a": {}}}]}, "/a", NAMED),
        ({"oneOf": [{**CLOSED, "properties": {"b": {}}}, {"type": "null"}]}, "/a", IMPOSSIBLE),
        ({"if": {"properties": {"kind": {}}}, "then": {"properties": {"a": {}}}}, "/a", NAMED),
        ({"if": {"required": ["k"]}, "then": {"properties": {"a": False}}}, "/a", OPEN),
        ({"if": {}, "then": {"properties": {"a": False}}, "else": False}, "/a", IMPOSSIBLE),
        ({"not": {"properties": {"a": {}}}}, "/a", NAMED),
        ({"type": "object", "dependentSchemas": {"a": {"properties": {"a": False}}}}, "/a", IMPOSSIBLE),
        ({"type": "object", "dependentSchemas": {"b": {"properties": {"a": False}}}}, "/a", OPEN),
        ({"enum": [{"a": 1}, 2]}, "/a", NAMED),
        ({"const": {"b": 1}}, "/a", IMPOSSIBLE),
        ({"type": "array", "prefixItems": [{}], "items": False}, "/0", NAMED),
        ({"type": "array", "prefixItems": [{}], "items": False}, "/1", IMPOSSIBLE),
        ({"type": "array", "maxItems": 2}, "/2", IMPOSSIBLE),
        ({"type": "array", "items": {"required": ["a"]}}, "/7/a", NAMED),
        ({"type": "array", "contains": {"required": ["a"]}}, "/7/a", NAMED),
        ({"type": "array"}, "/00", IMPOSSIBLE),
        ({"type": "array", "unevaluatedItems": False, "allOf": [{"prefixItems": [{}]}]}, "/1", IMPOSSIBLE),
        ({"type": "array", "unevaluatedItems": False, "allOf": [{"prefixItems": [{}]}]}, "/0", NAMED),
        (of_draft(7, {"type": "array", "items": [{}], "additionalItems": False}), "/1", IMPOSSIBLE),
        (of_draft(7, {"items": [{}], "additionalItems": {"required": ["a"]}}), "/1/a", NAMED),
        (of_draft(7, {"type": "array", "items": {}, "additionalItems": False}), "/1", NAMED),
        (of_draft(7, {**CLOSED, "$ref": "#/definitions/a", "definitions": {"a": {}}}), "/a", OPEN),
        (of_draft(7, {"type": "object", "dependencies": {"a": {"type": "null"}}}), "/a", IMPOSSIBLE),
        (of_draft(4, {"const": {"b": 1}}), "/a", OPEN),
        ({"unevaluatedProperties": False, "type": "object", "$ref": "#/$defs/a", "$defs": {"a": {
            "properties": {"a": {}}}}}, "/a", NAMED),
        ({"unevaluatedProperties": False, "type": "object", "properties": {"b": {}}}, "/a", IMPOSSIBLE),
        ({"unevaluatedProperties": False, "type": "object", "not": {"additionalProperties": {}}}, "/a", OPEN),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "/a", OPEN),
    ],
)  # fmt: skip
def test_path_is_what_the_schema_says(folder, schema, pointer, kind):
    assert answer(folder, schema, pointer).kind is kind


def test_dynamic_reference_may_lead_to_each_anchor_of_its_name(folder):
    schema = {
        "$id": "https://example.com/list",
        "properties": {"items": {"items": {"$dynamicRef": "#node"}}},
        "$defs": {
            "closed": {"$dynamicAnchor": "node", **CLOSED, "properties": {"b": {}}},
            "other": {"$id": "other", "$dynamicAnchor": "node", "properties": {"a": {}}},
        },
    }
    assert answer(folder, schema, "/items/0/a").kind is NAMED


def test_type_at_the_end_counts_where_one_is_wanted(folder):
    schema = {"properties": {"a": {"type": ["array", "null"]}, "b": {"const": []}, "c": {"enum": [[], 7]}}}
    wanted = frozenset({"string", "integer"})
    kinds = [answer(folder, schema, path, kinds=wanted).kind for path in ("/a", "/b", "/c")]
    assert kinds == [IMPOSSIBLE, IMPOSSIBLE, NAMED]
    assert answer(folder, schema, "/a").kind is NAMED


def test_names_that_stand_in_place_of_a_step_come_from_all_branches(folder):
    schema = {"anyOf": [{**CLOSED, "properties": {"b": {}}}, {**CLOSED, "properties": {"c": {}}}]}
    found = answer(folder, schema, "/a/d")
    assert (found.is_impossible, found.depth, found.names) == (True, 0, {"b", "c"})
    assert found.why == "does not allow `/a`"


def test_pattern_that_gives_up_forbids_no_name(folder):
    schema = {**CLOSED, "patternProperties": {"^(a|aa)+(?=x)$": {}}}
    assert answer(folder, schema, "/" + "a" * 60).kind is NAMED


def test_schema_that_takes_too_long_forbids_no_path(folder):
    wide = folder.inline({"allOf": [{"properties": {f"p{n}": {}}} for n in range(5000)], **CLOSED}, "wide")
    assert wide.path(("a",), thread_time() + 60).is_impossible
    assert wide.path(("a",), thread_time() + 0.0001) == UNDECIDED
    assert folder.inline(CLOSED, "small").path(("a",), thread_time() - 1) == UNDECIDED


def test_named_paths_of_a_recursive_schema_end(folder):
    paths = [each.steps for each in named_paths(folder.inline(TREE, "tree").index())]
    assert paths == [
        ("name",),
        ("below",),
        ("below", None),
        ("below", None, "name"),
        ("below", None, "below"),
    ]
    names = {f"n{n}": {"$ref": "#", "title": str(n)} for n in range(100)}
    assert len(list(named_paths(folder.inline({"properties": names}, "wide").index()))) <= MAX_PATHS


class Maker:
    """Makes random schemas that many random values satisfy."""

    NAMES = ("a", "b", "0", "1")

    def __init__(self, seed, draft):
        self.random, self.draft, self.budget = random.Random(seed), draft, 25

    def schema(self):
        self.budget -= 1
        if self.budget < 0 or self.random.random() < 0.15:
            return self.random.choice([{}, True, False, {"type": "string"}] if self.draft > 4 else [{}])
        keywords = self.random.sample(sorted(self.keywords()), self.random.choice([1, 2, 2, 3, 4]))
        return {name: self.keywords()[name]() for name in keywords}

    def keywords(self):
        pick, sub = self.random.choice, self.schema
        few = lambda: [sub() for _ in range(pick([1, 2, 3]))]  # noqa: E731
        members = lambda: {name: sub() for name in self.random.sample(self.NAMES, pick([1, 2]))}  # noqa: E731
        found = {
            "type": lambda: pick(["object", "array", ["object", "array"], ["object", "string"]]),
            "properties": members,
            "patternProperties": lambda: {pick(["a", "^[ab]$", "\\d"]): sub()},
            "additionalProperties": lambda: pick([False, sub()]),
            "required": lambda: [pick(self.NAMES)],
            "maxProperties": lambda: pick([0, 1, 2]),
            "allOf": few,
            "anyOf": few,
            "oneOf": few,
            "not": sub,
            "enum": lambda: [self.value(3) for _ in range(4)],
            "items": lambda: pick([sub, few])() if self.draft < 2020 else sub(),
            "maxItems": lambda: pick([0, 1, 2]),
            "dependencies": lambda: pick([members(), {"a": ["b"]}]),
            "$ref": lambda: pick(["#", "#/definitions/x", "#/definitions/y"]),
        }
        if self.draft < 2020:
            found["additionalItems"] = lambda: pick([False, sub()])
        if self.draft >= 6:
            found |= {"const": lambda: self.value(3), "contains": sub}
            found["propertyNames"] = lambda: pick([{"pattern": "a"}, {"enum": ["a", "0"]}, {"const": "b"}])
        if self.draft >= 7:
            found |= {"if": sub, "then": sub, "else": sub}
        if self.draft >= 2019:
            found |= {"dependentSchemas": members, "unevaluatedProperties": lambda: pick([False, sub()])}
            found["unevaluatedItems"] = lambda: pick([False, sub()])
        if self.draft == 2019:
            found["$recursiveRef"] = lambda: "#"
        if self.draft == 2020:
            found |= {"prefixItems": few, "$dynamicRef": lambda: pick(["#x", "#y"])}
        return found

    def document(self):
        schema = self.schema()
        document = of_draft(self.draft, schema if isinstance(schema, dict) else {"allOf": [schema]})
        document["definitions"] = {"x": self.schema(), "y": self.schema()}
        if self.draft == 2020:
            for name in "xy":
                if isinstance(document["definitions"][name], dict):
                    document["definitions"][name]["$dynamicAnchor"] = name
        return document

    def value(self, depth):
        kind = self.random.random()
        if depth == 0 or kind < 0.15:
            return self.random.choice(["s", 1, None])
        if kind < 0.75:
            return {
                name: self.value(depth - 1)
                for name in self.random.sample(self.NAMES, self.random.choice([0, 1, 2]))
            }
        return [self.value(depth - 1) for _ in range(self.random.choice([0, 1, 2, 3]))]


def pointers(value, steps=()):
    """Yield each path that exists in a value."""
    for step, member in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*steps, str(step))
        yield from pointers(member, (*steps, str(step)))


@pytest.mark.parametrize("draft", SCHEMA_URIS)
def test_no_path_that_a_valid_value_has_is_impossible(folder, draft):
    checked = forbidden = 0
    for seed in range(int(100 * float(os.environ.get("ABE_ROUTER_LONGER", "1")))):
        maker = Maker(seed, draft)
        document = maker.document()
        try:
            schema = folder.inline(document, "random")
        except SchemaInvalid:  # references that lead in a circle, or too many combinations
            continue
        known = {}
        for _ in range(40):
            value = maker.value(3)
            if schema.is_valid(value):
                for steps in pointers(value):
                    found = known.setdefault(steps, schema.path(steps, thread_time() + 60))
                    assert not found.is_impossible, (document, value, join(steps), found)
                    checked += 1
        forbidden += sum(schema.path((a, b), thread_time() + 60).is_impossible for a in "ab" for b in "ab")
    assert checked > 200
    assert forbidden > 10
