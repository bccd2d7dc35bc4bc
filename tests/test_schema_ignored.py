"""Keywords that check nothing."""

from __future__ import annotations

import pytest

from abe_router.schema.ignored import MAX_COMPARED, ignored_keywords, misspelt

D4, D6, D7 = (f"http://json-schema.org/draft-0{n}/schema#" for n in (4, 6, 7))
D2019 = "https://json-schema.org/draft/2019-09/schema"


def pointers(document, **options):
    return [each.pointer for each in ignored_keywords(document, **options)]


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("requird", "required"),
        ("propertis", "properties"),
        ("Properties", "properties"),
        ("minimun", "minimum"),
        ("itmes", "items"),
        ("tpye", "type"),
        ("enums", "enum"),
        ("additionalproperties", "additionalProperties"),
        ("additionalProperty", ""),
        ("x-sensitiv", "x-sensitive"),
        ("ref", "$ref"),
        ("tsAdditionalProperties", ""),
        ("typeof", ""),
        ("markdownDescription", ""),
        ("name", ""),
        ("total", ""),
    ],
)
def test_misspelt_keyword_is_recognised(name, keyword):
    assert misspelt(name) == keyword


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"type": "object", "requird": ["a"]}, ["/requird"]),
        ({"properties": {"a": {"minimun": 1}}}, ["/properties/a/minimun"]),
        ({"items": {"allOf": [{"tpye": "string"}]}}, ["/items/allOf/0/tpye"]),
        ({"dependencies": {"a": {"requird": ["b"]}}}, ["/dependencies/a/requird"]),
        ({"total": {"minimum": 100}}, ["/total"]),
        ({"total": {"minimum": 100}, "id": "order", "count": {"type": "integer"}}, []),
        ({"$schema": D4, "properties": {"a": {"const": 1}}}, ["/properties/a/const"]),
        ({"$schema": D6, "if": {}, "then": {"required": ["a"]}}, ["/if", "/then"]),
        ({"$schema": D7, "dependentRequired": {"a": ["b"]}}, ["/dependentRequired"]),
        ({"$schema": D2019, "prefixItems": [{}]}, ["/prefixItems"]),
        ({"additionalItems": False}, ["/additionalItems"]),
        ({"$schema": D7, "properties": {"a": {"$ref": "#", "minimum": 1}}}, ["/properties/a/minimum"]),
        (
            {"$schema": D7, "$ref": "#/definitions/a", "definitions": {"a": {"tpye": "null"}}},
            ["/definitions/a/tpye"],
        ),
        ({"$schema": D7, "$defs": {"a": {"id": "a", "$schema": D4, "const": 1}}}, ["/$defs/a/const"]),
    ],
)
def test_keyword_that_checks_nothing_is_found(document, expected):
    assert pointers(document) == expected


@pytest.mark.parametrize(
    "document",
    [
        True,
        {},
        {"title": "Order", "x-owner": "shop", "markdownDescription": "An order", "tsType": "Order"},
        {"properties": {"requird": {}, "propertis": {"type": "null"}, "$ref": {"type": "string"}}},
        {
            "const": {"requird": 1},
            "enum": [{"propertis": 1}],
            "default": {"tpye": 1},
            "examples": [{"tpye": 1}],
        },
        {"definitions": {"orders": {"small": {"type": "null"}, "large": {"type": "null"}}}},
        {
            "$schema": D7,
            "properties": {"a": {"$ref": "#", "description": "a", "$comment": "b", "x-sensitive": True}},
        },
        {"$schema": D2019, "properties": {"a": {"$ref": "#", "minimum": 1}}},
        {"$schema": D4, "$defs": {"a": {"$id": "a", "$schema": D7, "const": 1}}},
        {"type": "object", "required": ["a"], "requird": ["a"]},
    ],
)
def test_keyword_that_may_be_there_on_purpose_is_not_reported(document):
    assert pointers(document) == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"total": {"minimum": 100}}, ["/total"]),
        ({"type": "object", "total": {"minimum": 100}}, ["/total"]),
        ({"total": 100}, ["/total"]),
        ({"properties": {"total": {"above": 100}}}, ["/properties/total/above"]),
        ({"properties": {"total": {"minimum": 100}}, "x-why": "large orders"}, []),
        ({}, []),
    ],
)
def test_every_unknown_keyword_of_a_filter_is_reported(document, expected):
    assert pointers(document, filters=True) == expected


def test_one_cause_is_reported_once_with_the_number_of_its_places():
    document = {"$schema": D7, "properties": {name: {"$ref": "#", "minimum": 1} for name in "abc"}}
    (found,) = ignored_keywords(document)
    assert found.message == "keywords beside `$ref` have no effect in draft 7, here and in 2 other places"


def test_number_of_names_that_are_compared_is_bounded(monkeypatch):
    compared = []
    monkeypatch.setattr("abe_router.schema.ignored.misspelt", lambda name: compared.append(name) or "")
    ignored_keywords({f"name{number}": {} for number in range(5000)})
    ignored_keywords({"anyOf": [{f"name{number}": {}} for number in range(5000)]})
    assert len(compared) == 2 * MAX_COMPARED
