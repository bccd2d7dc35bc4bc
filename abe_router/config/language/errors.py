"""Reports the options and values that the language does not allow, with the names that the file uses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from abe_router.config.language import tests_model
from abe_router.config.language.http_model import HttpModel, TokenModel
from abe_router.config.language.model import (
    BatchModel,
    ConsumerModel,
    EntryModel,
    FileModel,
    OptionsModel,
    RetryModel,
)
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.text import did_you_mean, suggestion

Steps = tuple[str | int, ...]

_WANTED = {
    "bool_type": "`true` or `false`",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a mapping",
    "string_type": "text",
    "too_short": "at least one item",
}
#: How pydantic names the bounds of a number, and how a message does.
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}
#: The kinds of errors that the model raises itself, with the expected value and a hint.
_CUSTOM = {
    "duration": Code.DURATION,
    "http": Code.VALUE,
    "id": Code.ID,
    "json_schema": Code.WRONG_TYPE,
    "pointer": Code.POINTER,
    "rate": Code.RATE,
    "timestamp": Code.TIMESTAMP,
}
_HOMES: dict[type[BaseModel], str] = {
    BatchModel: "`batch`",
    OptionsModel: "a consumer, or of `defaults`",
    ConsumerModel: "a consumer",
    EntryModel: "a routing key",
    FileModel: "the file",
    RetryModel: "`retry`",
    HttpModel: "`http`",
    TokenModel: "a token",
    tests_model.CaseModel: "a case of `tests`",
    tests_model.PublishModel: "`publish`",
    tests_model.DeadModel: "`dead`",
    tests_model.EmittedModel: "`emitted`",
}
#: The options that are mappings themselves, and those of a case.
_PARTS: dict[str | int, type[BaseModel]] = {"batch": BatchModel, "retry": RetryModel}
_PARTS_OF_CASE: dict[str | int, type[BaseModel]] = {
    "publish": tests_model.PublishModel,
    "handled": tests_model.GotModel,
    "skipped": tests_model.GotModel,
    "dead": tests_model.DeadModel,
    "emitted": tests_model.EmittedModel,
    "rejected": tests_model.RejectedModel,
}
#: What to write for an option that is missing.
_MISSING = {
    "handler": "write `handler: package.module:function`",
    "key": "write `key: orders.created`",
    "payload": "write `payload: {total: 250}`, or any other value",
    "publish": "write `publish: {key: orders.created, payload: {total: 250}}`",
    "roles": "write `roles: [viewer]`",
    "route": "write `route: KEY/GROUP`",
}


def read_model(root: YamlNode, faults: Faults) -> FileModel | None:
    """Return the model of the file, or None if it has none. Add each fault to `faults`.

    A faulty part is removed and the rest is read again, so that one bad option does not hide the faults of
    others.
    """
    _respell_routes(root, faults)
    _remove_dedented(root, faults)
    value, first = root.value, True
    while True:
        try:
            return FileModel.model_validate(value)
        except ValidationError as error:
            value = copy.deepcopy(value) if first else value
            first, taken, lost = False, False, False
            for detail in error.errors(include_url=False, include_context=True):
                path = tuple(step for step in _existing(root, detail["loc"]))
                _report(detail, path, root, faults)
                lost |= path in {(), ("routes",)}
                taken |= bool(path) and _take_out(value, path)
            if lost or not taken:
                return None


def _respell_routes(root: YamlNode, faults: Faults) -> None:
    """Read a misspelt `routes` as `routes`, so that its content is checked as well."""
    if not isinstance(root.value, dict) or "routes" in root.value:
        return
    for name in root.value:
        if _similar(name, FileModel) == "routes":
            _report_unknown((name,), root, faults)
            root.value = {"routes" if key == name else key: value for key, value in root.value.items()}
            root.names["routes"], root.parts["routes"] = root.names[name], root.parts[name]
            return


def _remove_dedented(root: YamlNode, faults: Faults) -> None:
    """Report and remove options that stand one level too far left, where their names read as keys or groups.

    A key or a group may have the name of an option. So its value must be one that no key or group has.
    """
    routes = root.get(["routes"])
    if routes is None or not isinstance(routes.value, dict):
        return
    _remove_options(routes, EntryModel, "a routing key", "a key", _is_entry, faults)
    for key in routes.value:
        consumers = routes.get([key, "consumers"])
        if consumers is not None and isinstance(consumers.value, dict):
            _remove_options(consumers, ConsumerModel, "a consumer", "a group", _is_consumer, faults)


def _remove_options(
    mapping: YamlNode,
    model: type[BaseModel],
    home: str,
    instead: str,
    fits: Callable[[Any], bool],
    faults: Faults,
) -> None:
    before = ""
    for name in list(mapping.value):
        if before and name in _options(model) and not fits(mapping.value[name]):
            hint = f"indent it below `{before}`"
            message = f"`{name}` is an option of {home}, not {instead}"
            faults.add(Code.UNKNOWN_OPTION, message, mapping.names[name], hint=hint)
            del mapping.value[name]
        else:
            before = name


def _is_entry(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.keys() <= set(_options(EntryModel)))


def _is_consumer(value: Any) -> bool:
    path = value.partition(":") if isinstance(value, str) else ("", "", "")
    return bool(path[1] and path[0].replace(".", "_").isidentifier()) or (
        isinstance(value, dict) and "handler" in value
    )


def _existing(root: YamlNode, location: Steps) -> Iterator[str | int]:
    node: YamlNode | None = root
    for step in location:
        if isinstance(step, int) and node is not None and not isinstance(node.value, list):
            continue  # the file has one value in place of a list
        node = node.parts.get(step) if node is not None else None
        if node is None:
            return
        yield step


def _take_out(value: Any, path: Steps) -> bool:
    """Remove the value at the path (in `tests`: the whole case; all of `http`); return if it existed."""
    path = path[: {"tests": 2, "http": 1}.get(str(path[0]))]
    for step in path[:-1]:
        value = value.get(step) if isinstance(value, dict) else None
    if not isinstance(value, dict) or path[-1] not in value:
        return False
    del value[path[-1]]
    return True


def _report(detail: ErrorDetails, path: Steps, root: YamlNode, faults: Faults) -> None:
    """Add the fault of one of pydantic's errors. `path` is the part of its location that the file has."""
    kind, context = detail["type"], detail.get("ctx", {})
    node, span, name = root.at(path), root.span_at(path), _name(path)
    if kind == "extra_forbidden":
        _report_unknown(path, root, faults)
    elif kind == "missing":
        _report_missing(str(detail["loc"][-1]), path, span, faults)
    elif kind == "literal_error":
        options = re.findall(r"'([^']+)'", context.get("expected", ""))
        hint = did_you_mean(str(node.value), options) or f"write {_either(options)}"
        faults.add(Code.VALUE, f"{name} must be {_either(options)}, not {_shown(node)}", span, hint=hint)
    elif kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        faults.add(
            Code.VALUE, f"{name} must be {words} {context[key]:g}", span, label=f"found {_shown(node)}"
        )
    elif kind in _CUSTOM:
        wanted, hint = detail["msg"], context.get("hint", "")
        faults.add(_CUSTOM[kind], f"{name} expects {wanted}, found {_shown(node)}", span, hint=hint)
    elif kind == "string_pattern_mismatch":
        hint = "use letters, digits and `_.:/@=+~-`, at most 64 characters"
        faults.add(Code.VALUE, f"{name} {_unfit(node)}", span, hint=hint)
    elif path == ("routes",) and node.value is None:
        _report_missing("routes", path, span, faults)
    else:
        wanted = _WANTED.get(kind, detail["msg"])
        if not path:
            wanted = "a mapping with `routes`"
        elif len(path) == 4 and path[2] == "consumers":
            wanted = "a handler, or a mapping with `handler`"
        hint = "remove the quotes" if _quoted(kind, node) else ""
        if path == ("routes",):
            hint = "write each key as `orders.created:`, with its `consumers:` below it, without dashes"
        elif len(path) == 3 and path[0] == "routes" and path[2] == "consumers":
            handler = node.value if isinstance(node.value, str) else "package.module:function"
            hint = f"write each handler below its group: `billing: {handler}`"
        elif len(path) == 2 and path[0] == "routes":
            hint = "write `schema:` or `consumers:` below it"
            if isinstance(node.value, str) and node.value == node.text and ":" in node.value:
                hint = f"write `consumers: {{billing: {node.value}}}` below it"
        elif path[-1:] == ("batch",):
            hint = "write `{size: 100, wait: 50ms}`"
        elif path[-1:] == ("retry",):
            hint = f"write `{{attempts: {node.text if node.text.isdecimal() else 5}}}`"
        faults.add(Code.WRONG_TYPE, f"{name} expects {wanted}, found {_shown(node)}", span, hint=hint)


def _report_unknown(path: Steps, root: YamlNode, faults: Faults) -> None:
    option, here, span = str(path[-1]), _model_at(path[:-1]), root.name_at(path)
    close = _similar(option, here)
    homes = [where for model, where in _HOMES.items() if option in _options(model)]
    if here is FileModel and "." in option:
        hint = "routing keys go under `routes`"
    elif close:
        hint = f"did you mean `{close}`?"
    elif option == "handler" and here is EntryModel:
        handler = root.at(path).text or "package.module:function"
        hint = f"a handler is given below the name of its group: `consumers: {{billing: {handler}}}`"
    elif homes:
        hint = f"`{option}` is an option of {homes[0]}"
    else:
        hint = f"known options: {', '.join(f'`{name}`' for name in _options(here))}"
    faults.add(Code.UNKNOWN_OPTION, f"unknown option `{option}`", span, hint=hint)


def _report_missing(option: str, path: Steps, span: Span, faults: Faults) -> None:
    if option == "routes":
        hint = "write `routes:` with a key and its consumers below it; for no routes, write `routes: {}`"
        faults.add(Code.NO_ROUTES, "the file has no `routes`", span, hint=hint)
    else:
        faults.add(Code.MISSING_OPTION, f"{_name(path)} has no `{option}`", span, hint=_MISSING[option])


def _model_at(path: Steps) -> type[BaseModel]:
    if path[:1] == ("tests",):
        return _PARTS_OF_CASE[path[2]] if len(path) > 2 else tests_model.CaseModel
    if path[:1] == ("http",):
        return TokenModel if len(path) > 1 else HttpModel
    if path and path[-1] in _PARTS:
        return _PARTS[path[-1]]
    if path[:1] == ("defaults",):
        return OptionsModel
    if len(path) < 3:
        return EntryModel if path else FileModel
    return ConsumerModel


def _similar(name: str, model: type[BaseModel]) -> str:
    """Return the option of a model that is spelt like `name`, or an empty string."""
    return suggestion(name.lower(), _options(model)) or ""


def _options(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _name(path: Steps) -> str:
    match path:
        case ():
            return "the file"
        case ("routes", key):
            return f"key `{key}`"
        case ("routes", _, "consumers", group):
            return f"consumer `{group}`"
        case ("tests", name):
            return f"case `{name}`"
        case ("http", "tokens", name):
            return f"token `{name}`"
        case _:
            return f"`{next(step for step in reversed(path) if isinstance(step, str))}`"


def _shown(node: YamlNode) -> str:
    """Describe the value as the file has it. Variables are not replaced, because they may be secrets."""
    match node.value:
        case dict():
            return "a mapping"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case None:
            return "nothing"
    return f"`{node.text}`" if node.plain else f'`"{node.text}"`'


def _unfit(node: YamlNode) -> str:
    """Describe the fault of a prefix: a character that is not allowed, or its length."""
    odd = re.search(r"[^A-Za-z0-9_.:/@=+~-]", node.value)
    if odd is None:
        return f"is longer than 64 characters: {len(node.value)}"
    if node.value != node.text:
        return "contains a character that is not allowed"
    return f"contains {'a space' if odd[0] == ' ' else f'`{odd[0]}`'}, which is not allowed"


def _quoted(kind: str, node: YamlNode) -> bool:
    """Return whether the value would be right without its quotes."""
    number = kind in {"int_type", "float_type"} and re.fullmatch(r"[0-9]+(\.[0-9]+)?", node.text)
    return not node.plain and bool(number or (kind == "bool_type" and node.text in {"true", "false"}))


def _either(options: list[str]) -> str:
    quoted = [f"`{option}`" for option in options]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
