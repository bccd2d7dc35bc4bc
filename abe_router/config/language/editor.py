"""The JSON Schema of the routes file, which editors use to complete and check it."""

from __future__ import annotations

from typing import Any

from abe_router.config.language.model import FileModel
from abe_router.schema.ignored import IN_LIST, IN_MEMBERS, IN_VALUE, KEYWORDS

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_NULL = {"type": "null"}
#: How the model and how the schema describe a filter.
_ANY_SCHEMA, _FILTER = {"type": ["object", "boolean"]}, {"$ref": "#/$defs/Filter"}
#: The parts in which an option may be `null`, which undoes `defaults`.
_WITH_NULL = {"ConsumerModel", "EntryModel", "OptionsModel"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the language, generated from its model."""
    schema = FileModel.model_json_schema()
    parts = schema.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated: `abe-router schema` prints it.",
        "$defs": {_shown(name): _loosened(part, null=name in _WITH_NULL) for name, part in parts.items()}
        | {"Filter": _filter()},
        **_loosened(schema, null=False),
    }


def _shown(name: str) -> str:
    """Return the name of a part as editors show it: `Retry` for `RetryModel`."""
    return name.removesuffix("Model")


def _filter() -> dict[str, Any]:
    """Return the schema of a filter: a JSON Schema of known keywords alone, so that editors find typos."""
    forms: dict[str, dict[str, Any]] = {keyword: {} for keyword in sorted(KEYWORDS)}
    forms |= dict.fromkeys(sorted(IN_VALUE), _FILTER)
    forms |= {keyword: {"type": "array", "items": _FILTER} for keyword in sorted(IN_LIST)}
    forms |= {keyword: {"type": "object", "additionalProperties": _FILTER} for keyword in sorted(IN_MEMBERS)}
    forms |= {"items": {}, "dependencies": {}}  # in some drafts a list, or lists of names
    return {
        "type": ["object", "boolean"],
        "properties": forms,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def _loosened(schema: Any, *, null: bool) -> Any:
    """Remove titles, and allow a variable in place of each scalar. With `null`, options may be null."""
    if isinstance(schema, list):
        return [_loosened(item, null=null) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in {"title", "properties"}}
    found = {key: _loosened(value, null=null) for key, value in kept.items()}
    if isinstance(reference := found.get("$ref"), str):
        found["$ref"] = _shown(reference)
    if "properties" in schema:
        found["properties"] = {name: _option(part, null=null) for name, part in schema["properties"].items()}
    return found


def _option(schema: dict[str, Any], *, null: bool) -> dict[str, Any]:
    found: dict[str, Any] = _loosened(schema, null=null)
    forms = found.pop("anyOf", None)
    if found.get("default", ...) is None:
        del found["default"]
        forms = forms and [form for form in forms if null or form != _NULL]
    said: dict[str, Any] = {key: found.pop(key) for key in ("description", "default") if key in found}
    forms, beside = (forms, found) if forms else ([found], {})
    forms = [_FILTER if form == _ANY_SCHEMA else form for form in forms]
    if not any(form.get("type") == "object" or "$ref" in form or form == {} for form in forms):
        forms = [*forms, _VARIABLE]
    return said | beside | (forms[0] if len(forms) == 1 else {"anyOf": forms})
