from __future__ import annotations

import json
import math
import os
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abe_router.errors import PayloadInvalid, PayloadUnencodable, SchemaInvalid, Violation
from abe_router.messages.message import decode, encode_for_check
from abe_router.messages.pointer import find
from abe_router.routing.contract import MessageContract
from abe_router.schema import Schema, SchemaFolder

DRAFTS = (
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
)
D4, D7, D2020 = DRAFTS[0], DRAFTS[2], DRAFTS[4]
CORPUS = Path(os.environ.get("ABE_ROUTER_CORPUS", "corpus-is-not-here"))
SECRET = "hunter2-4711"


@pytest.fixture
def folder(tmp_path) -> SchemaFolder:
    (tmp_path / "schemas").mkdir()
    return SchemaFolder(tmp_path / "schemas")


def write(folder: SchemaFolder, name: str, document: object) -> None:
    path = folder.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def inline(document: object, **options: bool) -> Schema:
    return SchemaFolder(Path("/nowhere"), **options).inline(document, "test")


def only(document: object, value: object) -> Violation:
    """Return the one violation of the value."""
    schema = inline(document)
    assert not schema.is_valid(value)
    (violation,) = schema.violations(value)
    return violation


def fault_of(folder: SchemaFolder, name: str):
    """Return the one fault for which a schema does not load."""
    with pytest.raises(SchemaInvalid) as caught:
        folder.load(name)
    (fault,) = caught.value.faults
    return fault


# --- what is read, and from where


def test_a_schema_is_loaded_by_its_path_in_the_folder(folder):
    write(folder, "shop/order.json", {"type": "object"})
    schema = folder.load("shop/order.json")
    assert schema.name == "shop/order.json"
    assert schema.sources == {folder.root / "shop/order.json"}
    assert schema.is_valid({})
    assert not schema.is_valid([])


@pytest.mark.parametrize("draft", DRAFTS)
def test_the_schema_keyword_selects_the_draft(folder, draft):
    write(folder, "a.json", {"$schema": draft, "type": "integer", "minimum": 2})
    assert folder.load("a.json").is_valid(2)


def test_drafts_differ_in_what_they_accept():
    exclusive = {"minimum": 2, "exclusiveMinimum": True}
    assert not inline({"$schema": D4, **exclusive}).is_valid(2)
    with pytest.raises(SchemaInvalid):
        inline({"$schema": D7, **exclusive})
    tuples = {"prefixItems": [{"type": "string"}]}
    assert inline({"$schema": D7, **tuples}).is_valid([1])
    assert not inline(tuples).is_valid([1])  # 2020-12 when nothing is said


def test_references_lead_to_other_files_and_back(folder):
    write(folder, "order.json", {"properties": {"item": {"$ref": "parts/item.json#/$defs/item"}}})
    item = {"properties": {"sku": {"$ref": "../sku.json"}, "order": {"$ref": "../order.json"}}}
    write(folder, "parts/item.json", {"$defs": {"item": item}})
    write(folder, "sku.json", {"type": "string"})
    schema = folder.load("order.json")
    assert schema.is_valid({"item": {"sku": "a", "order": {"item": {"sku": "b"}}}})
    assert not schema.is_valid({"item": {"order": {"item": {"sku": 1}}}})
    assert {path.name for path in schema.sources} == {"order.json", "item.json", "sku.json"}


def test_references_by_id_are_found_among_the_files_of_the_folder(folder):
    home = "https://example.com/schemas/"
    write(folder, "order.json", {"$id": home + "order", "properties": {"sku": {"$ref": "sku"}}})
    write(folder, "deep/sku.json", {"$id": home + "sku", "type": "string"})
    schema = folder.load("order.json")
    assert not schema.is_valid({"sku": 1})
    write(folder, "old.json", {"$schema": D4, "id": home + "old", "properties": {"sku": {"$ref": "sku"}}})
    folder.refresh()
    assert not folder.load("old.json").is_valid({"sku": 1})


def test_reference_to_a_percent_encoded_name_is_found(folder):
    write(folder, "a b%20ü#.json", {"$ref": "c%20d.json"})
    write(folder, "c d.json", {"type": "null"})
    assert folder.load("a b%20ü#.json").is_valid(None)


@pytest.mark.parametrize(
    "reference",
    [
        "../outside.json",
        "%2e%2e/outside.json",
        "a/../../outside.json",
        "/outside.json",
        "file:///etc/hostname",
        "link.json",
        "linked/outside.json",
    ],
)
def test_reference_outside_the_folder_is_refused(folder, reference):
    outside = folder.root.parent / "outside.json"
    outside.write_text("{}")
    (folder.root / "link.json").symlink_to(outside)
    (folder.root / "linked").symlink_to(folder.root.parent)
    write(folder, "a.json", {"properties": {"x": {"$ref": reference}}})
    fault = fault_of(folder, "a.json")
    assert (fault.kind, fault.pointer) == ("outside", "/properties/x/$ref")
    assert fault_of(folder, reference.replace("file://", "").replace("%2e", ".")).kind == "outside"


def test_a_fault_outside_the_folder_reveals_nothing_about_the_file(folder):
    there, gone = fault_of(folder, "../../../../../../../etc/hostname"), fault_of(folder, "../../gone.json")
    assert there.kind == gone.kind == "outside"


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:1/a.json", "https://example.com/a.json", "file://host/a.json", "urn:x:a"]
)
def test_no_reference_is_fetched_from_the_network(folder, reference):
    write(folder, "a.json", {"$ref": reference})
    fault = fault_of(folder, "a.json")
    assert fault.kind == "reference"
    assert "schemas are not fetched" in fault.hint


def test_links_within_the_folder_are_followed_as_in_a_mounted_config_map(folder):
    write(folder, "..data_1/a.json", {"$ref": "b.json"})
    write(folder, "..data_1/b.json", {"type": "null"})
    (folder.root / "..data").symlink_to("..data_1")
    for name in ("a.json", "b.json"):
        (folder.root / name).symlink_to(f"..data/{name}")
    assert not folder.load("a.json").is_valid(1)


def test_each_bad_reference_is_reported_at_its_place(folder):
    references = {"a": "gone.json", "b": "#/$defs/gone", "c": "../x.json", "d": "https://e.x/y"}
    write(folder, "a.json", {"properties": {k: {"$ref": r} for k, r in references.items()}})
    with pytest.raises(SchemaInvalid) as caught:
        folder.load("a.json")
    found = {fault.pointer: fault.kind for fault in caught.value.faults}
    assert found == {
        "/properties/a/$ref": "reference",
        "/properties/b/$ref": "reference",
        "/properties/c/$ref": "outside",
        "/properties/d/$ref": "reference",
    }


def test_a_reference_below_an_id_is_relative_to_it(folder):
    write(folder, "a.json", {"properties": {"x": {"$id": "sub/x.json", "items": {"$ref": "y.json"}}}})
    fault = fault_of(folder, "a.json")
    assert fault.pointer == "/properties/x/items/$ref"
    write(folder, "sub/y.json", {"type": "null"})
    folder.refresh()
    assert not folder.load("a.json").is_valid({"x": [1]})


def test_references_in_data_are_ignored(folder):
    data = {"$ref": "../gone.json"}
    write(folder, "a.json", {"enum": [data], "const": data, "default": data, "examples": [data]})
    assert folder.load("a.json").is_valid(data)
    write(folder, "b.json", {"properties": {"$ref": {"type": "string"}, "enum": {"type": "null"}}})
    assert not folder.load("b.json").is_valid({"$ref": 1})


def test_a_fault_in_a_referenced_file_names_that_file(folder):
    write(folder, "a.json", {"$ref": "b.json"})
    write(folder, "b.json", {"properties": {"x": {"type": "nul"}}})
    fault = fault_of(folder, "a.json")
    assert (fault.path, fault.pointer) == (folder.root / "b.json", "/properties/x/type")
    write(folder, "b.json", '{"type":\n  nul}')
    folder.refresh()
    fault = fault_of(folder, "a.json")
    assert (fault.kind, fault.path, fault.line, fault.column) == ("syntax", folder.root / "b.json", 2, 3)


def test_a_byte_order_mark_is_ignored(folder):
    write(folder, "plain.json", {"type": "object"})
    (folder.root / "marked.json").write_bytes(b'\xef\xbb\xbf{"type": "object"}')
    assert folder.load("marked.json") == folder.load("plain.json")
    (folder.root / "faulty.json").write_bytes(b"\xef\xbb\xbf{]")
    fault = fault_of(folder, "faulty.json")
    assert (fault.line, fault.column) == (1, 2)


@pytest.mark.parametrize("text", [b'{"a": "\xe9"}', '{"a": 1}'.encode("utf-16")])
def test_a_schema_that_is_not_utf_8_is_refused(folder, text):
    (folder.root / "odd.json").write_bytes(text)
    fault = fault_of(folder, "odd.json")
    assert (fault.kind, fault.message) == ("syntax", "schema `odd.json` is not UTF-8")


@pytest.mark.parametrize(
    ("text", "name", "column"),
    [
        ('{"type": "object", "type": "string"}', "type", 20),
        ('{"allOf": [{}, {"title": "{:", "a": 1, "\\u0061": 2}]}', "a", 40),
    ],
)
def test_a_duplicate_key_is_a_fault_at_its_second_place(folder, text, name, column):
    write(folder, "twice.json", text)
    fault = fault_of(folder, "twice.json")
    assert (fault.message, fault.line) == (f"schema `twice.json` gives key `{name}` twice", 1)
    assert fault.column == column


def test_objects_beside_and_in_each_other_may_have_the_same_keys(folder):
    write(
        folder,
        "same.json",
        '{"title": "a: \\"b", "properties": {"title": {"title": ""}, "x": {"title": "{"}}}',
    )
    assert folder.load("same.json").is_valid({})


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"properties": {"a/b~": {"type": "strin"}}}, {"/properties/a~1b~0/type"}),
        ({"minimum": "1", "required": "a"}, {"/minimum", "/required"}),
        ({"pattern": "("}, {"/pattern"}),
        ({"patternProperties": {"(": {}}}, {"/patternProperties"}),
        ({"items": 3}, {"/items"}),
        ([], {""}),
        ("x", {""}),
        (None, {""}),
    ],
)
@pytest.mark.parametrize("draft", DRAFTS[1:])
def test_invalid_schema_is_reported_with_pointers(draft, document, pointers):
    if isinstance(document, dict):
        document = {"$schema": draft, **document}
    with pytest.raises(SchemaInvalid) as caught:
        inline(document)
    assert {fault.pointer for fault in caught.value.faults} == pointers
    assert {fault.kind for fault in caught.value.faults} == {"schema"}


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("name", ["", "0", "007", "+1", "-1", "a"])
def test_fault_below_an_unusual_name_has_an_exact_pointer(draft, name):
    with pytest.raises(SchemaInvalid) as caught:
        inline({"$schema": draft, "properties": {name: {"type": "nul"}, "b": {"pattern": "("}}})
    assert {fault.pointer for fault in caught.value.faults} == {
        f"/properties/{name}/type",
        "/properties/b/pattern",
    }


def test_error_for_an_unknown_draft_suggests_the_closest_one(folder):
    write(folder, "a.json", {"$schema": "https://json-schema.org/draft-07/schema"})
    fault = fault_of(folder, "a.json")
    assert (fault.kind, fault.pointer) == ("dialect", "/$schema")
    assert "http://json-schema.org/draft-07/schema" in fault.hint
    write(folder, "b.json", {"$schema": "https://example.com/mine", "$ref": "a.json"})
    assert fault_of(folder, "b.json").kind == "dialect"


def test_pipes_folders_and_large_files_are_refused(folder):
    os.mkfifo(folder.root / "pipe.json")
    (folder.root / "folder.json").mkdir()
    write(folder, "large.json", '{"description": "%s"}' % ("x" * 1024 * 1024))
    write(folder, "deep.json", '{"not": ' * 200 + "{}" + "}" * 200)
    for name in ("pipe.json", "folder.json", "large.json"):
        assert fault_of(folder, name).kind == "unreadable"
    assert fault_of(folder, "deep.json").kind == "syntax"


# --- values, and what a reload compiles


def test_layout_does_not_change_the_value_of_a_schema(folder):
    write(folder, "a.json", {"type": "object", "required": ["x"]})
    write(folder, "b.json", '{"required":\n["x"], "type": "object"}')
    a, b = folder.load("a.json"), folder.load("b.json")
    assert a == b
    assert hash(a) == hash(b)
    assert inline({"type": "null"}) != inline({"type": "null"}, formats=False)


def test_an_edit_recompiles_only_the_schemas_that_use_the_file(folder):
    write(folder, "common.json", {"type": "string"})
    write(folder, "uses.json", {"items": {"$ref": "common.json"}})
    write(folder, "other.json", {"type": "null"})
    uses, other = folder.load("uses.json"), folder.load("other.json")
    folder.refresh()
    assert (folder.load("uses.json"), folder.load("other.json")) == (uses, other)
    assert folder.load("uses.json") is uses
    write(folder, "common.json", {"type": "integer"})
    folder.refresh()
    assert folder.load("other.json") is other
    assert folder.load("uses.json") != uses
    assert not folder.load("uses.json").is_valid(["a"])


def test_a_layout_edit_keeps_the_compiled_schema(folder):
    write(folder, "a.json", '{"type": "null"}')
    before = folder.load("a.json")
    write(folder, "a.json", '{\n  "type": "null"\n}')
    folder.refresh()
    assert folder.load("a.json") is before


def test_another_file_with_the_same_id_recompiles_the_schema(folder):
    write(folder, "a.json", {"$ref": "https://e.x/b"})
    write(folder, "one.json", {"$id": "https://e.x/b", "type": "null"})
    before = folder.load("a.json")
    (folder.root / "one.json").unlink()
    write(folder, "two.json", {"$id": "https://e.x/b", "type": "integer"})
    folder.refresh()
    after = folder.load("a.json")
    assert after != before
    assert after.is_valid(3)


@pytest.mark.parametrize("name", ["circle.json", "circle/x.json"])
def test_circular_links_are_refused(folder, name):
    (folder.root / "circle.json").symlink_to("circle.json")
    (folder.root / "circle").symlink_to("circle")
    fault = fault_of(folder, name)
    assert fault.kind == "unreadable"
    assert "symbolic links" in fault.message


def test_a_folder_whose_name_is_not_utf8_is_read_like_any_other(tmp_path):
    folder = SchemaFolder(tmp_path / os.fsdecode(b"caf\xe9"))
    latin = os.fsdecode(b"th\xe9.json")
    write(folder, "order.json", {"properties": {"item": {"$ref": "items/item.json"}}})
    write(folder, "items/item.json", {"type": "string"})
    write(folder, latin, {"type": "integer"})
    assert not folder.load("order.json").is_valid({"item": 1})
    assert folder.load(latin).is_valid(1)
    assert fault_of(folder, "gone.json").kind == "missing"


def test_missing_files_are_listed_among_the_files_read(folder):
    write(folder, "a.json", {"$ref": "gone.json"})
    fault_of(folder, "a.json")
    assert folder.files == {folder.root / "a.json", folder.root / "gone.json"}


# --- what a violation says


@pytest.mark.parametrize(
    ("document", "value", "expected"),
    [
        ({"type": "integer"}, "x", 'at (root): type: expected integer, found "x"'),
        (
            {"type": ["null", "string"]},
            [1],
            "at (root): type: expected null or string, found array with 1 item",
        ),
        (
            {"required": ["a"]},
            {"b": 1},
            "at (root): required: expected property `a`, found object with 1 member",
        ),
        ({"minimum": 1.5}, 1, "at (root): minimum: expected at least 1.5, found 1"),
        (
            {"exclusiveMaximum": 3},
            10**30,
            f"at (root): exclusiveMaximum: expected less than 3, found {10**30}",
        ),
        ({"multipleOf": 2}, 3, "at (root): multipleOf: expected a multiple of 2, found 3"),
        ({"maxLength": 1}, "ab", 'at (root): maxLength: expected at most 1 character, found "ab"'),
        ({"minItems": 2}, [], "at (root): minItems: expected at least 2 items, found array with 0 items"),
        (
            {"minProperties": 1},
            {},
            "at (root): minProperties: expected at least 1 member, found object with 0 members",
        ),
        ({"pattern": "^a"}, "b", 'at (root): pattern: expected a match of `^a`, found "b"'),
        ({"format": "date"}, "b", 'at (root): format: expected format `date`, found "b"'),
        ({"const": {"a": 1}}, None, "at (root): const: expected object with 1 member, found null"),
        ({"enum": ["a", 1]}, True, 'at (root): enum: expected one of "a", 1, found true'),
        (
            {"uniqueItems": True},
            [1, 1],
            "at (root): uniqueItems: expected no item twice, found array with 2 items",
        ),
        (
            {"not": {"type": "null"}},
            None,
            "at (root): not: expected no match of the schema under `not`, found null",
        ),
        ({"properties": {"a": False}}, {"a": 1}, "at /a: false: expected no value here, found 1"),
        (
            {"propertyNames": {"maxLength": 1}},
            {"ab": 1},
            'at (root): propertyNames: expected property names with at most 1 character, found "ab"',
        ),
        (
            {"dependentRequired": {"a": ["b"]}},
            {"a": 1},
            "at (root): dependentRequired: expected property `b`, found object with 1 member",
        ),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"b": [1]},
            "at (root): additionalProperties: expected no property `b`, found array with 1 item",
        ),
        (
            {"properties": {"additionalProperties": False}},
            {"additionalProperties": {"a": 1}},
            "at /additionalProperties: false: expected no value here, found object with 1 member",
        ),
        (
            {"properties": {"o": {"additionalProperties": False}}},
            {"o": {"a": 1}},
            "at /o: additionalProperties: expected no property `a`, found 1",
        ),
        (
            {"anyOf": [{"type": "null"}, {"type": "string"}]},
            1,
            "at (root): anyOf: expected null or string, found 1",
        ),
        (
            {"oneOf": [{"minimum": 1}, {"multipleOf": 2}]},
            4,
            "at (root): oneOf: expected exactly one alternative to match, found that 0 and 1 do",
        ),
        (
            {"anyOf": [{"minimum": 1}, {"multipleOf": 2}]},
            -1,
            "at (root): anyOf: expected a match of at least one of 2 alternatives, found -1",
        ),
        (
            {"contains": {"type": "null"}},
            [1],
            "at (root): contains: expected other items matching `contains`, found array with 1 item",
        ),
    ],
)
def test_a_violation_reads_as_a_sentence(document, value, expected):
    assert str(only(document, value)) == expected


def test_each_violation_has_its_pointer():
    schema = inline(
        {
            "properties": {"a/b": {"items": {"type": "integer"}}, "c": {"type": "null"}},
            "required": ["d"],
            "additionalProperties": False,
        }
    )
    found = schema.violations({"a/b": [1, "x"], "c": 1, "e": 1, "f": 2})
    assert {(v.pointer, v.keyword) for v in found} == {
        ("/a~1b/1", "type"),
        ("/c", "type"),
        ("", "required"),
        ("", "additionalProperties"),
    }
    assert sum(v.keyword == "additionalProperties" for v in found) == 2


def test_violations_of_the_closest_alternative_are_explained():
    kinds = [
        {"properties": {"kind": {"const": "card"}, "number": {"type": "string"}}},
        {"properties": {"kind": {"const": "cash"}, "coins": {"type": "integer"}}},
    ]
    assert only({"oneOf": kinds}, {"kind": "cash", "coins": "x"}).pointer == "/coins"
    nested = {"oneOf": [{"properties": {"kind": {"const": "cheque"}}}, {"oneOf": kinds}]}
    assert only(nested, {"kind": "cash", "coins": "x"}).pointer == "/coins"
    by_type = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["sku"]}]}
    assert only(by_type, {}).keyword == "required"


def test_schema_pointer_names_the_referenced_file(folder):
    write(folder, "a.json", {"properties": {"x": {"$ref": "b.json#/$defs/x"}, "y": {"type": "null"}}})
    write(folder, "b.json", {"$defs": {"x": {"type": "null"}}})
    found = {v.pointer: v.schema_pointer for v in folder.load("a.json").violations({"x": 1, "y": 1})}
    assert found == {"/x": "b.json#/$defs/x/type", "/y": "/properties/y/type"}


def test_long_strings_are_cut_and_containers_counted():
    violation = only({"type": "null"}, "x" * 5000)
    assert violation.found == f'"{"x" * 60}"… (5,000 characters)'
    assert only({"type": "null"}, {str(n): n for n in range(2000)}).found == "object with 2,000 members"


def test_at_most_1000_violations_are_returned(monkeypatch):
    monkeypatch.setattr("abe_router.schema.explanation.MAX_SEARCH", 60.0)  # or a slow machine finds fewer
    monkeypatch.setattr("abe_router.schema.explanation.MAX_DESCRIPTION", 60.0)
    assert len(inline({"items": {"type": "null"}}).violations([1] * 5000)) == 1000


def test_a_pattern_that_backtracks_too_much_is_named_as_the_cause():
    violation = only({"pattern": "^(a|aa)+(?=x)$"}, "a" * 60)
    assert violation.keyword == "pattern"
    assert "schema's fault" in violation.found


@pytest.mark.parametrize("draft", DRAFTS)
def test_formats_are_asserted_in_all_drafts_or_none(draft):
    document = {"$schema": draft, "format": "email"}
    assert not inline(document).is_valid("x")
    assert inline(document, formats=False).is_valid("x")
    assert inline({"$schema": draft, "format": "no-such-format"}).is_valid("x")


# --- what is sensitive


@pytest.mark.parametrize(
    "document",
    [
        {"properties": {"a": {"x-sensitive": True, "type": "null"}}},
        {"properties": {"a": {"$ref": "#/$defs/s"}}, "$defs": {"s": {"x-sensitive": True, "const": "other"}}},
        {"properties": {"a": {"type": "null"}}, "allOf": [{"properties": {"a": {"x-sensitive": True}}}]},
        {"anyOf": [{"properties": {"a": {"x-sensitive": True}}}], "properties": {"a": {"enum": ["other"]}}},
        {"patternProperties": {"^a": {"x-sensitive": True, "maxLength": 1}}},
        {"additionalProperties": {"x-sensitive": True, "pattern": "^x"}},
        {"unevaluatedProperties": {"x-sensitive": True, "type": "null"}},
        {"if": {"required": ["a"]}, "then": {"properties": {"a": {"x-sensitive": True, "type": "null"}}}},
        {"dependentSchemas": {"a": {"properties": {"a": {"x-sensitive": True, "format": "date"}}}}},
        {"x-sensitive": True, "properties": {"a": {"type": "null"}}},
        {"x-sensitive": True, "additionalProperties": False},
        {"properties": {"a": {"x-sensitive": True}}, "additionalProperties": False, "maxProperties": 0},
        {"properties": {"a": {"x-sensitive": True, "oneOf": [{"type": "null"}, {"pattern": "^x"}]}}},
        {"$ref": "#/$defs/n", "$defs": {"n": {"properties": {"a": {"x-sensitive": True, "not": {}}}}}},
        {"properties": {"a": {"x-sensitive": True, "type": "null"}, "b": {"$ref": "#"}}},
        {
            "$id": "https://e.x/tree",
            "$dynamicAnchor": "node",
            "properties": {"a": {"type": "null", "$dynamicRef": "#leaf"}},
            "$defs": {"leaf": {"$dynamicAnchor": "leaf", "x-sensitive": True}},
        },
    ],
)
def test_a_sensitive_value_appears_nowhere(document):
    assert inline(document).marks("/a")
    for violation in inline(document).violations({"a": SECRET, "b": {"a": SECRET}}):
        assert SECRET not in f"{violation}{violation.schema_pointer}"
    assert SECRET not in json.dumps(inline(document).mask({"a": SECRET}))


def test_marks_says_of_each_pointer_whether_mask_hides_its_value():
    schema = inline(
        {
            "properties": {
                "card": {"x-sensitive": True},
                "0": {"type": "integer"},
                "items": {"items": [{}, {"x-sensitive": True}], "additionalItems": {"$ref": "#/$defs/line"}},
                "secrets": {"propertyNames": {"x-sensitive": True}},
            },
            "$defs": {"line": {"properties": {"iban": {"x-sensitive": True}}}},
            "$schema": "http://json-schema.org/draft-07/schema#",
        }
    )
    line = {"iban": "secret", "amount": 5}
    payload = {
        "card": {"number": 1},
        "0": 7,
        "items": [1, "secret", line],
        "secrets": {"name": 1},
        "other": 1,
    }
    masked = schema.mask(payload)
    pointers = [
        *("/card", "/card/number", "/0", "/items/0", "/items/1", "/items/2/iban", "/items/2/amount"),
        *("/secrets/name", "/other"),
    ]
    hidden = []
    for pointer in pointers:
        try:
            is_hidden = find(masked, pointer) == "(masked)"
        except LookupError:  # what contains it is masked
            is_hidden = True
        assert schema.marks(pointer) == is_hidden, pointer
        hidden.append(is_hidden)
    assert hidden == [True, True, False, False, True, True, False, True, False]


def test_mask_replaces_the_sensitive_parts_and_leaves_the_value_as_it_was():
    document = {
        "properties": {
            "card": {"x-sensitive": True},
            "lines": {"items": {"properties": {"pin": {"x-sensitive": True}}}},
            "pair": {"prefixItems": [{}, {"x-sensitive": True}], "items": {}},
            "codes": {"propertyNames": {"x-sensitive": True}},
        },
    }
    value = {
        "card": {"number": 1},
        "lines": [{"pin": 1, "n": 2}, {"n": 3}],
        "pair": [1, 2, 3],
        "codes": {"a": 1},
    }
    before = json.dumps(value)
    assert inline(document).mask(value) == {
        "card": "(masked)",
        "lines": [{"pin": "(masked)", "n": 2}, {"n": 3}],
        "pair": [1, "(masked)", 3],
        "codes": "(masked)",
    }
    assert json.dumps(value) == before
    assert inline({"properties": {"a": {"type": "null"}}}).mask(value) is value


def test_a_path_within_a_sensitive_value_is_masked():
    document = {"properties": {"cards": {"x-sensitive": True, "additionalProperties": {"type": "integer"}}}}
    violation = only(document, {"cards": {SECRET: "x"}})
    assert violation.pointer == "/cards"
    assert violation.found == "(masked)"
    names = {"properties": {"cards": {"x-sensitive": True, "propertyNames": {"maxLength": 1}}}}
    assert SECRET not in str(only(names, {"cards": {SECRET: 1}}))


def test_constants_for_a_sensitive_value_are_masked():
    for keyword, value in (("const", SECRET), ("enum", [SECRET, "b"])):
        violation = only({"items": {"x-sensitive": True, keyword: value}}, ["x"])
        assert SECRET not in str(violation)
        assert violation.keyword == keyword


def test_an_unexpected_property_that_is_sensitive_by_another_branch_is_masked():
    document = {
        "allOf": [{"properties": {"pin": {"x-sensitive": True}}}],
        "additionalProperties": False,
    }
    assert only(document, {"pin": SECRET}).found == "(masked)"


def test_values_beside_a_sensitive_value_are_shown():
    document = {"properties": {"a": {"x-sensitive": True}, "b": {"type": "null"}}}
    assert only(document, {"a": SECRET, "b": "plain"}).found == '"plain"'


def test_items_are_sensitive_one_by_one():
    document = {"prefixItems": [{"type": "null"}, {"x-sensitive": True, "type": "null"}]}
    assert [v.found for v in inline(document).violations([1, SECRET])] == ["1", "(masked)"]
    old = {
        "$schema": D7,
        "items": [{"type": "null"}],
        "additionalItems": {"x-sensitive": True, "type": "null"},
    }
    assert [v.found for v in inline(old).violations([1, SECRET])] == ["1", "(masked)"]


def test_sensitivity_crosses_files(folder):
    write(folder, "a.json", {"properties": {"card": {"$ref": "card.json"}}})
    write(
        folder,
        "card.json",
        {"$id": "card.json", "$ref": "#/$defs/c", "$defs": {"c": {"$ref": "deep/c.json"}}},
    )
    write(folder, "deep/c.json", {"properties": {"number": {"x-sensitive": True, "type": "null"}}})
    (violation,) = folder.load("a.json").violations({"card": {"number": SECRET}})
    assert SECRET not in str(violation)


# --- the second opinion

scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", SECRET, "2020-01-01"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])


def keywords(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Draw an object schema of a few keywords."""
    lists = st.lists(inner, min_size=1, max_size=3)
    members = st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
            "enum": st.lists(scalars, min_size=1, max_size=3),
            "const": values,
            "minimum": st.integers(-3, 3),
            "exclusiveMaximum": st.integers(-3, 3),
            "multipleOf": st.integers(1, 3),
            "minLength": st.integers(0, 3),
            "pattern": st.sampled_from(["a", "^a", "b$", "^$"]),
            "maxItems": st.integers(0, 2),
            "uniqueItems": st.booleans(),
            "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
            "properties": members,
            "patternProperties": st.dictionaries(st.sampled_from(["a", "^b"]), inner, max_size=2),
            "additionalProperties": inner,
            "propertyNames": inner,
            "items": inner,
            "contains": inner,
            "allOf": lists,
            "anyOf": lists,
            "oneOf": lists,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "x-sensitive": st.booleans(),
        },
    )


schemas = st.recursive(st.booleans() | keywords(st.booleans()), keywords, max_leaves=6)


@given(schemas, values)
def test_jsonschema_and_jsonschema_rs_agree_on_random_documents(document, value):
    schema = inline(document)
    theirs = jsonschema.Draft202012Validator(document).is_valid(value)
    assert schema.is_valid(value) == theirs
    assert bool(schema.violations(value)) != theirs


class Colour(Enum):
    RED, BOTH, NONE = "a", ("a", "ab"), None


class Level(IntEnum):
    HIGH = 2


@dataclass
class Order:
    a: int = 1


objects = st.recursive(
    scalars
    | st.sampled_from([1.5, Decimal("1.5"), Decimal("1e400"), 2**70, UUID(int=5), date(2020, 1, 1), b"a"])
    | st.sampled_from([*Colour, *Level, Order(), frozenset({1}), math.nan]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["a", "b", "c", 1, Level.HIGH]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(schemas, objects)
def test_object_is_accepted_if_and_only_if_the_json_that_is_sent_is_valid(document, value):
    schema = inline(document)
    try:
        body, payload = encode_for_check(value)
    except PayloadUnencodable:
        return
    with pytest.raises(PayloadInvalid) if schema.violations(decode(body)) else nullcontext():
        MessageContract((schema,)).message("orders.created", body, payload, {})


@given(schemas, values)
def test_no_violation_shows_a_secret_when_the_root_is_sensitive(document, value):
    everywhere = {"allOf": [document], "x-sensitive": True}
    for violation in inline(everywhere).violations(value):
        assert violation.pointer == ""
        assert SECRET not in str(violation)


@given(schemas, values)
def test_no_violation_shows_a_secret_below_a_sensitive_schema(document, value):
    document = {"allOf": [document], "$dynamicAnchor": "any", **_masking_secrets("any")}
    for violation in inline(document).violations(value):
        assert f'"{SECRET}"' not in violation.found


@given(schemas, values)
def test_mask_shows_no_secret_below_a_sensitive_schema(document, value):
    document = {"allOf": [document], "$dynamicAnchor": "any", **_masking_secrets("any")}
    assert f'"{SECRET}"' not in json.dumps(list(_strings(inline(document).mask(value))))


def _strings(value):
    """Yield the strings of a value, without the names of members."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


def _masking_secrets(anchor: str) -> dict[str, object]:
    """Return what makes every string below the root sensitive, at whatever depth."""
    inner = {"$dynamicRef": f"#{anchor}-in"}
    deeper = {
        "$dynamicAnchor": f"{anchor}-in",
        "if": {"type": "string"},
        "then": {"x-sensitive": True},
        "additionalProperties": inner,
        "items": inner,
    }
    return {"$defs": {"in": deeper}, "$ref": "#/$defs/in"}


@pytest.mark.skipif(not CORPUS.is_dir(), reason="ABE_ROUTER_CORPUS names no folder")
def test_jsonschema_and_jsonschema_rs_agree_on_the_corpus():
    folder = SchemaFolder(CORPUS / "schemas", formats=False)
    theirs = {
        name: jsonschema.Draft7Validator(json.loads((CORPUS / "schemas" / name).read_text()))
        for name in folder.names()
    }
    counted = {True: 0, False: 0}
    for line in (CORPUS / "payloads.ndjson").read_text().splitlines():
        row = json.loads(line)
        name = ".".join(row["key"].split(".")[:2]) + ".json"
        schema = folder.load(name)
        valid = schema.is_valid(row["payload"])
        assert valid == theirs[name].is_valid(row["payload"])
        assert valid == (not schema.violations(row["payload"]))
        counted[valid] += 1
    assert all(counted.values())


_SECRET = "4929000011112222"
_PERSON = {
    "type": "object",
    "required": ["pin"],
    "properties": {"pin": {"type": "string", "x-sensitive": True}, "name": {"type": "string"}},
}
_DAMAGED = {
    "$defs": {"person": _PERSON},
    "type": "object",
    "required": ["card", "person"],
    "properties": {
        "id": {"type": "string"},
        "card": {"type": "string", "x-sensitive": True},
        "person": {"anyOf": [{"$ref": "#/$defs/person"}, {"type": "null"}]},
        "people": {"type": "array", "items": {"$ref": "#/$defs/person"}},
        "pair": {"prefixItems": [{"$ref": "#/$defs/person"}], "items": False},
        "map": {"allOf": [{"patternProperties": {"^p_": {"$ref": "#/$defs/person"}}}]},
    },
}
_PLACES = ("card", "person", "people", "pair", "map", "")


@cache
def _damaged_schema() -> Schema:
    return inline(_DAMAGED)


def _undamaged() -> dict[str, Any]:
    person = {"pin": _SECRET, "name": "Ann"}
    return {
        "id": "ord_1",
        "card": _SECRET,
        "person": person,
        "people": [person, person],
        "pair": [person],
        "map": {"p_1": person},
    }


def _damage(value: Any, kind: str) -> Any:
    match kind:
        case "json in a text":
            return json.dumps(value)
        case "json in a text twice":
            return json.dumps(json.dumps(value))
        case "in an array":
            return [value]
        case "in two arrays":
            return [[value]]
        case "a text":
            return f"card {_SECRET}"
        case "a number":
            return int(_SECRET)
        case _:
            return [_SECRET, {"wrong": _SECRET}]


@given(
    place=st.sampled_from(_PLACES),
    kinds=st.lists(
        st.sampled_from(
            [
                "json in a text",
                "json in a text twice",
                "in an array",
                "in two arrays",
                "a text",
                "a number",
                "items",
            ]
        ),
        min_size=1,
        max_size=3,
    ),
    renamed=st.text(min_size=1, max_size=8).filter(lambda name: name not in _DAMAGED["properties"]),
    rename=st.booleans(),
)
@settings(max_examples=1_000, deadline=None)
def test_damaged_payload_shows_no_secret_in_its_mask_and_in_its_violations(place, kinds, renamed, rename):
    value: Any = _undamaged()
    for kind in kinds:
        if place:
            value[place] = _damage(value.get(place, _SECRET), kind)
        else:
            value = _damage(value, kind)
    if rename and isinstance(value, dict):
        value[renamed] = value.pop("card")
    schema = _damaged_schema()
    assert _SECRET not in json.dumps(schema.mask(value))
    assert _SECRET not in repr(schema.violations(value))


def test_only_the_smallest_part_without_its_shape_is_masked_and_a_valid_value_is_readable():
    schema = inline(_DAMAGED)
    masked = {"pin": "(masked)", "name": "Ann"}
    shown = {
        "id": "ord_1",
        "card": "(masked)",
        "person": masked,
        "people": [masked, masked],
        "pair": [masked],
        "map": {"p_1": masked},
    }
    assert schema.mask(_undamaged() | {"note": 1}) == shown | {"note": 1}
    assert schema.mask(_undamaged() | {"people": [{"name": "Ann"}, _SECRET], "person": None}) == shown | {
        "people": [{"name": "Ann"}, "(masked)"],
        "person": None,
    }
    text_or_person = inline({"anyOf": [{"type": "string"}, _PERSON]})
    assert text_or_person.mask("a name") == "a name"
    assert text_or_person.mask(5) == "(masked)"
