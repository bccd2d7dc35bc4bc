"""Reads an AsyncAPI document alone, as a program without the routes file does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs

from abe_router.messages.pointer import find

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
#: The JSON Schema of AsyncAPI documents. It does not follow references within them.
SPECIFICATION = jsonschema_rs.validator_for(
    json.loads((Path(__file__).parent / "asyncapi-3.1.json").read_text())
)


def references(value: Any) -> Iterator[str]:
    """Yield every reference in a document, wherever it is: tools follow those in data too."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from references(member)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def resolve(document: dict[str, Any], reference: str) -> Any:
    """Return what a reference leads to. Raise LookupError unless it is in the document."""
    if not reference.startswith("#/"):
        raise LookupError(reference)
    return find(document, reference[1:])


def check(document: Any) -> dict[str, Any]:
    """Return a document as it arrives, after checks of its form and of every reference."""
    arrived: dict[str, Any] = json.loads(json.dumps(document))
    assert [error.message for error in SPECIFICATION.iter_errors(arrived)] == []
    for reference in references(arrived):
        resolve(arrived, reference)
    return arrived


def message_of(document: dict[str, Any], key: str) -> str:
    """Return the name of the component for the messages of a key, found by the address of its channel."""
    (channel,) = [each for each in document["channels"].values() if each["address"] == key]
    return channel["messages"]["message"]["$ref"].removeprefix("#/components/messages/")


def validator(document: dict[str, Any], key: str) -> jsonschema_rs.Validator:
    """Return the check of the payloads of a key, made of the document alone."""
    name = message_of(document, key)
    payload = document["components"]["messages"][name]["payload"]
    pointer, draft = f"#/components/messages/{name}/payload", DRAFT_7
    if "schemaFormat" in payload:
        pointer, draft = f"{pointer}/schema", payload["schema"]["$schema"]
    whole = {"$schema": draft, "$ref": pointer, "components": document["components"]}
    return jsonschema_rs.validator_for(whole, validate_formats=True, offline=True)
