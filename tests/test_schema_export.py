"""A schema in another document: its references lead somewhere, and it accepts the same values."""

from __future__ import annotations

import json
import random

import jsonschema_rs
import pytest

from abe_router.errors import SchemaInvalid
from abe_router.schema import SchemaFolder
from abe_router.schema.dialect import SCHEMA_URIS
from abe_router.schema.export import FORMAT_2020, SchemaExport

VALUES = [
    *(None, True, 0, 1, 3, 4, 11, -1, 2.5, "", "a", "ab", "abc", [], [1], ["a"], [1, "a"], [1, 2, "a"]),
    *([1, 1], {}, {"a": 1}, {"a": "x"}, {"b": 1}, {"a": 1, "b": "ab"}, {"a": 4, "b": 5, "c": [1, 2]}),
    *({"c": [1, "a", 3]}, {"a": {"a": {"a": 3}}}, {"$ref": 1}, {"$ref": "x"}, {"a": {"b": {}}, "c": []}),
]


def write(folder, **files):
    for name, schema in files.items():
        (folder / f"{name}.json").write_text(json.dumps(schema))
    return SchemaFolder(folder)


def exported(*schemas):
    """Return the document of schemas that all apply, the pointer of their payload, and the export."""
    export = SchemaExport()
    payload = export.payload(schemas)
    return {"payload": payload, "components": {"schemas": export.components()}}, export


def alone(document):
    payload, pointer, draft = document["payload"], "#/payload", SCHEMA_URIS[7]
    if isinstance(payload, dict) and payload.get("schemaFormat") == FORMAT_2020:
        pointer, draft = "#/payload/schema", SCHEMA_URIS[2020]
    whole = {"$schema": draft, "allOf": [{"$ref": pointer}], **document}
    return jsonschema_rs.validator_for(whole, validate_formats=True, offline=True)


def assert_same(schema, values=VALUES):
    """Check that a schema and its export accept the same values, and return the export's document."""
    document, export = exported(schema)
    assert export.unchecked == []
    check = alone(document)
    for value in values:
        assert check.is_valid(value) is schema.is_valid(value), (value, document)
    return document


DRAFT = {draft: {"$schema": uri} for draft, uri in SCHEMA_URIS.items()}
SCHEMAS = {
    "bounds of draft 4": {**DRAFT[4], "minimum": 3, "exclusiveMinimum": True, "maximum": 11},
    "a flag of draft 4 that is off": {**DRAFT[4], "minimum": 3, "exclusiveMinimum": False},
    "a keyword that draft 4 does not know": {**DRAFT[4], "const": 1, "propertyNames": False},
    "a reference hides what is beside it": {
        **DRAFT[7],
        "definitions": {"A": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/definitions/A", "minimum": 4}},
    },
    "a reference with keywords beside it": {
        "$defs": {"A": {"type": "integer"}},
        "properties": {"a": {"$ref": "#/$defs/A", "minimum": 4}},
    },
    "an anchor and an embedded id": {
        "$id": "https://shop.example/a",
        "$defs": {
            "A": {"$anchor": "here", "type": "integer"},
            "B": {"$id": "b", "$defs": {"C": {"type": "string"}}, "$ref": "#/$defs/C"},
        },
        "properties": {"a": {"$ref": "#here"}, "b": {"$ref": "b"}},
    },
    "an id of draft 7 as anchor": {
        **DRAFT[7],
        "definitions": {"A": {"$id": "#here", "type": "integer"}},
        "properties": {"a": {"$ref": "#here"}},
    },
    "recursion": {"type": "object", "properties": {"a": {"anyOf": [{"$ref": "#"}, {"const": 3}]}}},
    "a pointer into properties": {
        "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/properties/a"}},
    },
    "a list of items": {**DRAFT[7], "items": [{"type": "integer"}], "additionalItems": {"type": "string"}},
    "prefix items": {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}},
    "dependencies of both kinds": {
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"c": {"required": ["a"]}},
        "dependencies": {"b": ["a"]},
    },
    "dependencies beside the keywords that replace them": {
        "dependentRequired": {"a": ["b"]},
        "dependentSchemas": {"c": {"required": ["a"]}},
        "dependencies": {"b": ["c"], "c": {"required": ["b"]}},
        "unevaluatedProperties": True,
    },
    "unevaluated properties": {
        "allOf": [{"properties": {"a": True}}],
        "dependencies": {"a": ["b"], "c": {"required": ["b"]}},
        "properties": {"b": True},
        "unevaluatedProperties": False,
    },
    "counts of contained items": {"contains": {"type": "integer"}, "minContains": 2, "maxContains": 2},
    "a property named $ref": {"properties": {"$ref": {"type": "integer"}}, "additionalProperties": False},
    "a property named like a keyword": {"properties": {"a": True, "$defs": {"type": "integer"}}},
    "nothing": False,
    "a dynamic reference with one target": {
        "$dynamicAnchor": "node",
        "properties": {"a": {"anyOf": [{"$dynamicRef": "#node"}, {"type": "integer"}]}},
        "type": "object",
    },
    "a recursive reference": {
        **DRAFT[2019],
        "$recursiveAnchor": True,
        "properties": {"a": {"anyOf": [{"$recursiveRef": "#"}, {"type": "integer"}]}},
        "type": "object",
    },
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_exported_schema_accepts_the_same_values(name, tmp_path):
    assert_same(write(tmp_path, schema=SCHEMAS[name]).load("schema.json"))


def test_property_named_ref_is_no_object_that_readers_take_for_a_reference(tmp_path):
    schema = write(tmp_path, schema=SCHEMAS["a property named $ref"]).load("schema.json")
    assert '"$ref": {' not in json.dumps(exported(schema)[0])


def test_schema_of_several_files_and_drafts_accepts_the_same_values(tmp_path):
    folder = write(
        tmp_path,
        new={"properties": {"a": {"$ref": "old.json#/definitions/A"}, "b": {"$ref": "https://x.example/y"}}},
        old={**DRAFT[4], "definitions": {"A": {"minimum": 3, "exclusiveMinimum": True}}},
        named={**DRAFT[7], "$id": "https://x.example/y", "type": "string", "minLength": 2},
        strict={"$ref": "new.json", "properties": {"c": True}, "unevaluatedProperties": False},
    )
    document = assert_same(folder.load("new.json"))
    assert set(document["components"]["schemas"]) == {"new", "old.A", "x.example.y"}
    assert_same(folder.load("strict.json"))


def test_schemas_that_apply_together_are_all_checked(tmp_path):
    folder = write(
        tmp_path,
        one={"type": "object", "required": ["a"]},
        two={"properties": {"b": True}, "unevaluatedProperties": {"type": "integer"}},
    )
    one, two = folder.load("one.json"), folder.load("two.json")
    check = alone(exported(one, two)[0])
    for value in VALUES:
        assert check.is_valid(value) is (one.is_valid(value) and two.is_valid(value))
    assert alone(exported()[0]).is_valid(1)


def test_extending_schema_is_the_target_of_dynamic_references(tmp_path):
    folder = write(
        tmp_path,
        tree={
            "$id": "https://x.example/tree",
            "$dynamicAnchor": "node",
            "properties": {"a": {"$dynamicRef": "#node"}},
        },
        strict={
            "$id": "https://x.example/strict",
            "$dynamicAnchor": "node",
            "$ref": "tree",
            "unevaluatedProperties": False,
        },
    )
    assert_same(folder.load("tree.json"))
    assert_same(folder.load("strict.json"))


def test_part_that_cannot_be_exported_accepts_everything_and_is_named(tmp_path):
    schema = write(
        tmp_path, schema={"properties": {"a": {"const": {"$ref": "#/x"}, "default": {"$ref": "#/x"}}}}
    ).load("schema.json")
    document, export = exported(schema)
    assert "$ref" not in json.dumps(document["components"])
    assert export.unchecked == ["`const` in schema: its value has a member `$ref`"]
    assert alone(document).is_valid({"a": 1})
    schema = write(tmp_path, meta={"$ref": SCHEMA_URIS[2020]}).load("meta.json")
    assert exported(schema)[1].unchecked == [
        f"`$ref` to `{SCHEMA_URIS[2020]}` in meta: it has a target outside the folder"
    ]


def test_dynamic_reference_with_several_targets_is_named(tmp_path):
    schema = write(
        tmp_path,
        schema={"anyOf": [{"$ref": "one.json"}, {"$ref": "two.json"}]},
        one={"$dynamicAnchor": "node", "properties": {"a": {"$dynamicRef": "#node"}}},
        two={"$dynamicAnchor": "node", "$ref": "one.json"},
    ).load("schema.json")
    document, export = exported(schema)
    assert export.unchecked == ["`$dynamicRef` to `#node` in one: it has no static target"]
    assert alone(document).is_valid({"a": 1})


KEYWORDS = {
    "type": lambda make: make.pick(["integer", "string", "object", "array", ["integer", "object"]]),
    "minimum": lambda make: make.pick([0, 3, 4]),
    "exclusiveMinimum": lambda make: make.pick([True, False] if make.draft == 4 else [0, 3]),
    "minLength": lambda make: 2,
    "enum": lambda make: [1, "a", {"a": 1}],
    "const": lambda make: make.pick([1, {"a": 1}]),
    "properties": lambda make: {name: make.schema() for name in make.some(["a", "b", "$ref", "items"])},
    "patternProperties": lambda make: {"^[ab]": make.schema()},
    "additionalProperties": lambda make: make.schema(),
    "required": lambda make: make.some(["a", "b"]) or ["c"],
    "items": lambda make: (
        [make.schema(), make.schema()] if make.draft < 2020 and make.odds(0.5) else make.schema()
    ),
    "additionalItems": lambda make: make.schema(),
    "prefixItems": lambda make: [make.schema()],
    "contains": lambda make: make.schema(),
    "minContains": lambda make: 2,
    "uniqueItems": lambda make: True,
    "propertyNames": lambda make: {"enum": ["a", "b"]},
    "dependencies": lambda make: {"a": make.pick([["b"], make.schema()]), "b": make.schema()},
    "dependentRequired": lambda make: {"a": ["b"]},
    "dependentSchemas": lambda make: {"b": make.schema()},
    "allOf": lambda make: [make.schema()],
    "anyOf": lambda make: [make.schema(), make.schema()],
    "oneOf": lambda make: [make.schema(), make.schema()],
    "not": lambda make: make.schema(),
    "if": lambda make: make.schema(),
    "then": lambda make: make.schema(),
    "else": lambda make: make.schema(),
    "unevaluatedProperties": lambda make: make.schema(),
    "unevaluatedItems": lambda make: make.schema(),
    "$ref": lambda make: make.pick(["#/definitions/A", "#/definitions/B", "other.json", "other.json#/not"]),
}


class Maker:
    """Makes random schemas of one draft, from a seed."""

    def __init__(self, seed, draft):
        self._random, self.draft, self._depth = random.Random(seed), draft, 0
        self.pick, self.odds = self._random.choice, lambda share: self._random.random() < share

    def some(self, names):
        return [name for name in names if self.odds(0.5)]

    def schema(self):
        if self._depth > 2 or self.odds(0.1):
            return {"type": "integer"} if self.draft == 4 else self.pick([True, False, {"type": "integer"}])
        self._depth += 1
        found = {name: KEYWORDS[name](self) for name in self._random.sample(list(KEYWORDS), 4)}
        if self.draft == 4 and "exclusiveMinimum" in found:
            found.setdefault("minimum", 3)
        self._depth -= 1
        return found

    def document(self):
        found = self.schema()
        while isinstance(found, bool) or len(found) < 2:
            found = self.schema()
        definitions = {"A": {"type": "integer", "minimum": 3}, "B": {"required": ["a"]}}
        return {**found, **DRAFT[self.draft], "definitions": definitions}


@pytest.mark.parametrize("draft", DRAFT)
def test_random_schemas_accept_the_same_values(draft, tmp_path):
    compared = 0
    for seed in range(150):
        document = Maker(seed, draft).document()
        folder = write(tmp_path, schema=document, other={**DRAFT[7], "not": {"const": 4}})
        try:
            schema = folder.load("schema.json")
        except SchemaInvalid:  # a keyword in the form of another draft
            continue
        assert_same(schema)
        compared += len({schema.is_valid(value) for value in VALUES}) > 1
    assert compared > 20
