"""The JSON Schema of the routes file, which editors use to complete and check it."""

from __future__ import annotations

import inspect as python
from typing import Any

from msgspec import NODEFAULT, inspect

from abe_router.config.language.check import model_of, type_of
from abe_router.config.language.forms import Model, Number, Text, plain
from abe_router.config.language.model import ConsumerModel, EntryModel, FileModel, OptionsModel
from abe_router.schema.ignored import IN_LIST, IN_MEMBERS, IN_VALUE, KEYWORDS

_VARIABLE = {"type": "string", "pattern": r"\$\{"}
_NULL = {"type": "null"}
_FILTER = {"$ref": "#/$defs/Filter"}
_SCALARS = {inspect.BoolType: "boolean", inspect.FloatType: "number", inspect.IntType: "integer"}
#: How msgspec and how JSON Schema name the limits of a number.
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}
#: The models in which an option may be `null`, which undoes `defaults`.
_WITH_NULL = {ConsumerModel, EntryModel, OptionsModel}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the language, generated from its model."""
    parts: dict[str, Any] = {}
    file = _model(FileModel, parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated: `abe-router schema` prints it.",
        "$defs": {name: parts[name] for name in sorted(parts)} | {"Filter": _filter()},
        **file,
    }


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


def _model(model: type[Model], parts: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a model. Those of the models inside are added to `parts`, by name."""
    fields = type_of(model).fields
    found: dict[str, Any] = {
        "type": "object",
        "description": python.getdoc(model),
        "properties": {
            field.encode_name: _option(field, parts, null=model in _WITH_NULL) for field in fields
        },
        "additionalProperties": False,
    }
    if required := [field.encode_name for field in fields if field.required]:
        found["required"] = required
    return found


def _option(field: inspect.Field, parts: dict[str, Any], *, null: bool) -> dict[str, Any]:
    """Return the schema of an option. A variable may stand for a scalar or a list."""
    said: dict[str, Any] = {}
    if isinstance(field.type, inspect.Metadata):
        said |= field.type.extra_json_schema or {}
    if "default" not in said:
        default = field.default
        if default is not NODEFAULT and default not in (None, ()) and not isinstance(default, Model):
            said["default"] = _written(default)
    forms = [form for form in _forms(field.type, parts) if null or form != _NULL]
    if "pattern" in said:
        forms[0]["pattern"] = said.pop("pattern")
    if not any(form.get("type") == "object" or "$ref" in form or form == {} for form in forms):
        forms.append(_VARIABLE)
    return said | _any_of(forms)


def _written(default: Any) -> Any:
    if isinstance(default, list | tuple):
        return [plain(item) for item in default]
    return default.text if isinstance(default, Number) else plain(default)


def _forms(kind: inspect.Type, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives for a value of a type."""
    match kind:
        case inspect.Metadata(extra={"unfit": _}):
            return [_FILTER]
        case inspect.Metadata(extra={"choices": choices}):
            return [{"type": "string", "enum": list(choices)}]
        case inspect.Metadata():
            return _forms(kind.type, parts)
        case inspect.UnionType():
            return [form for each in kind.types for form in _forms(each, parts)]
        case inspect.NoneType():
            return [_NULL]
        case inspect.CustomType():
            form: type[Text | Number] = kind.cls
            return form.schema.get("anyOf", None) or [form.schema]
        case inspect.StrType():
            return [{"type": "string"}]
        case inspect.BoolType() | inspect.IntType() | inspect.FloatType():
            limits = {said: getattr(kind, name, None) for name, said in _LIMITS.items()}
            known = {said: limit for said, limit in limits.items() if limit is not None}
            return [{"type": _SCALARS[type(kind)], **known}]
        case inspect.ListType():
            return [{"type": "array", "items": _any_of(_forms(kind.item_type, parts))}]
        case inspect.VarTupleType():  # one value may stand for a list of them
            items = _forms(kind.item_type, parts)
            return [*items, {"type": "array", "items": _any_of(items), "minItems": 1}]
        case inspect.DictType():
            return [{"type": "object", "additionalProperties": _any_of(_forms(kind.value_type, parts))}]
        case inspect.StructType():
            return _references(model_of(kind), parts)
    return [{}]


def _any_of(forms: list[dict[str, Any]]) -> dict[str, Any]:
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _references(model: type[Model], parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a reference to a model, which is added to `parts`, and the short form that it may have."""
    name = model.__name__.removesuffix("Model")
    reference = {"$ref": f"#/$defs/{name}"}
    if name not in parts:
        parts[name] = _model(model, parts)
        if model is ConsumerModel:
            said = "The handler, with every option as in `defaults`."
            short = {**parts[name]["properties"]["handler"]["anyOf"][0], "description": said}
            parts[name] = {"anyOf": [short, parts[name]]}
    return [{"type": "string"}, reference] if model.short and model is not ConsumerModel else [reference]
