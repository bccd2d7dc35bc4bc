"""Schemas that are found by their `$id`, and the `$id` of two schemas."""

from __future__ import annotations

import json

import pytest

from abe_router.errors import SchemaInvalid
from abe_router.schema import SchemaFolder

HOME = "https://example.com/schemas/"
D4, D7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"


@pytest.fixture
def folder(tmp_path) -> SchemaFolder:
    return SchemaFolder(tmp_path / "schemas")


def write(folder: SchemaFolder, **documents: object) -> None:
    for name, document in documents.items():
        path = folder.root / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))


def faults_of(folder: SchemaFolder, name: str) -> list[tuple[str, str]]:
    with pytest.raises(SchemaInvalid) as caught:
        folder.load(name)
    return [(fault.path.name if fault.path else "", fault.pointer) for fault in caught.value.faults]


def test_schema_embedded_in_another_file_is_found_by_its_id(folder):
    bundle = {
        "$schema": D7,
        "$id": HOME + "bundle",
        "definitions": {
            "sku": {"$id": "sku", "properties": {"code": {"$ref": "#/definitions/code"}}}
            | {"definitions": {"code": {"$id": "parts/code", "type": "string"}}},
            "other": {"type": "null"},
        },
    }
    write(
        folder,
        bundle=bundle,
        a={"$ref": HOME + "sku"},
        b={"$ref": HOME + "parts/code"},
        c={"$ref": HOME + "other"},
    )
    assert folder.load("a.json").is_valid({"code": "x"})
    (violation,) = folder.load("a.json").violations({"code": 1})
    assert violation.pointer == "/code"
    assert not folder.load("b.json").is_valid(1)
    assert faults_of(folder, "c.json") == [("c.json", "/$ref")]


def test_embedded_schema_keeps_the_draft_of_its_file(folder):
    write(
        folder,
        bundle={
            "$schema": D4,
            "definitions": {"a": {"id": HOME + "a", "minimum": 3, "exclusiveMinimum": True}},
        },
        a={"$ref": HOME + "a"},
    )
    assert not folder.load("a.json").is_valid(3)


def test_fault_of_an_embedded_schema_is_at_its_place_in_the_file(folder):
    write(
        folder,
        bundle={
            "$defs": {"a": {"$id": HOME + "a", "type": "text"}, "b": {"$id": HOME + "b", "$ref": "gone"}}
        },
        a={"$ref": HOME + "a"},
        b={"$ref": HOME + "b"},
    )
    assert faults_of(folder, "a.json") == [("bundle.json", "/$defs/a/type")]
    assert faults_of(folder, "b.json") == [("bundle.json", "/$defs/b/$ref")]


def test_reference_by_id_reads_the_files_that_it_needs_and_parses_no_others(folder):
    write(folder, a={"$ref": HOME + "b"}, b={"$id": HOME + "b", "type": "null"})
    (folder.root / "broken.json").write_text('{"$id": "https://example.com/schemas/x", ')
    for number in range(50):
        write(folder, **{f"other{number}": {"$id": f"{HOME}{number}", "type": "null"}})
    schema = folder.load("a.json")
    assert schema.is_valid(None)
    assert {path.name for path in schema.sources} == {"a.json", "b.json"}
    assert {path.name for path in folder._library._read} == {"a.json", "b.json"}
    assert folder.root / "other7.json" in folder.files  # it may get the `$id`


def test_id_written_with_escapes_is_found(folder):
    write(folder, a={"$ref": HOME + "b"})
    (folder.root / "b.json").write_text('{"$id": "https:\\/\\/example.com\\/schemas\\/b#", "type": "null"}')
    assert not folder.load("a.json").is_valid(1)


def test_two_schemas_with_one_id_are_a_fault_of_the_second(folder):
    write(
        folder,
        a={"$id": HOME + "part", "type": "integer"},
        b={"$id": HOME + "part", "type": "string"},
        c={"properties": {"x": {"$ref": HOME + "part"}, "y": {"$ref": HOME + "part"}}},
        d={"anyOf": [{"$ref": "a.json"}, {"$ref": "b.json"}]},
    )
    assert faults_of(folder, "c.json") == [("b.json", "/$id")]
    assert faults_of(folder, "d.json") == [("b.json", "/$id")]
    assert folder.load("b.json").is_valid("x")  # it refers to nothing


def test_copies_of_a_schema_and_hidden_folders_are_no_conflict(folder):
    write(folder, a={"$id": HOME + "part", "type": "integer"}, c={"$ref": HOME + "part"})
    write(folder, copy={"type": "integer", "$id": HOME + "part"})
    write(folder, **{"..2026_01_31/a": {"$id": HOME + "part", "type": "string"}})
    assert folder.load("c.json").is_valid(1)


def test_id_beside_a_reference_has_no_effect_up_to_draft_7(folder):
    document = {
        "$schema": D7,
        "$id": HOME + "y",
        "$ref": "#/definitions/A",
        "definitions": {
            "A": {"anyOf": [{"$ref": "#/definitions/gone"}, {"$ref": "#/definitions/D"}]},
            "D": {},
        },
    }
    write(folder, a=document)
    assert faults_of(folder, "a.json") == [("a.json", "/definitions/A/anyOf/0/$ref")]


def test_reference_with_characters_that_no_uri_has_is_reported_once_with_its_spelling(folder):
    inner = {
        "anyOf": [{"$ref": "#/definitions/B<C>"}, {"$ref": "#/definitions/B<C>"}, {"$ref": "#/definitions/D"}]
    }
    write(folder, a={"$schema": D4, **inner, "definitions": {"B<C>": {}, "D": {}}})
    with pytest.raises(SchemaInvalid) as caught:
        folder.load("a.json")
    (fault,) = caught.value.faults
    assert fault.pointer == "/anyOf/0/$ref"
    assert fault.message == "`$ref` to `#/definitions/B<C>` is not a URI reference; so are 1 more"
    assert fault.hint == "write `#/definitions/B%3CC%3E`"
