"""The JSON Schema of the routes file, which editors use to complete and check it."""

from __future__ import annotations

from typing import Any

from abe_router.config.language.model import FileModel

_FILTER = {"type": ["object", "boolean"]}
_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the language, generated from its model."""
    schema = _loosened(FileModel.model_json_schema())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated: `abe-router schema` prints it.",
        **schema,
    }


def _loosened(schema: Any) -> Any:
    """Remove titles, and allow a variable in place of each scalar."""
    if isinstance(schema, list):
        return [_loosened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _loosened(value) for key, value in schema.items() if key not in {"title", "properties"}}
    if "properties" in schema:
        found["properties"] = {name: _option(part) for name, part in schema["properties"].items()}
    return found


def _option(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = _loosened(schema)
    forms = found.pop("anyOf", None)
    if found.get("default", ...) is None:
        del found["default"]
        forms = forms and [form for form in forms if form != {"type": "null"}]
    said: dict[str, Any] = {key: found.pop(key) for key in ("description", "default") if key in found}
    forms = forms or [found]
    if not any(form.get("type") == "object" or "$ref" in form or form in (_FILTER, {}) for form in forms):
        forms = [*forms, _VARIABLE]
    return said | (forms[0] if len(forms) == 1 else {"anyOf": forms})
