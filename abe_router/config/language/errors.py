"""Reports the options and values that the language does not allow, with the names that the file uses."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from abe_router.config.language import tests_model
from abe_router.config.language.check import FaultKind, OptionFault, Steps, expand, option_faults, type_of
from abe_router.config.language.forms import Model, read_form
from abe_router.config.language.http_model import HttpModel, TokenModel
from abe_router.config.language.model import (
    BatchModel,
    ConsumerModel,
    EntryModel,
    FileModel,
    OptionsModel,
    RetryModel,
    inherit,
)
from abe_router.config.language.synonyms import hint_of_synonym
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.text import did_you_mean, suggestion

_HOMES: dict[type[Model], str] = {
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
#: The models whose options other libraries have too.
_ROUTING = (FileModel, EntryModel, OptionsModel, ConsumerModel, RetryModel, BatchModel)
#: The options that are mappings themselves, and those of a case.
_PARTS: dict[str | int, type[Model]] = {"batch": BatchModel, "retry": RetryModel}
_PARTS_OF_CASE: dict[str | int, type[Model]] = {
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
    kind = type_of(FileModel)
    value = given = expand(root.value, kind)
    while True:
        try:
            return msgspec.convert(inherit(value), FileModel, dec_hook=read_form)
        except msgspec.ValidationError:
            value = copy.deepcopy(given) if value is given else value
            taken = lost = False
            if not (found := list(option_faults(value, kind))):
                raise  # a bug, which must not pass for a file without faults
            for fault in found:
                path = tuple(_existing(root, fault.path))
                _report(fault, path, root, faults)
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
    model: type[Model],
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


def _report(fault: OptionFault, path: Steps, root: YamlNode, faults: Faults) -> None:
    """Add a fault of an option. `path` is the part of its path that the file has."""
    node, span, name = root.at(path), root.span_at(path), _name(path)
    match fault:
        case OptionFault(FaultKind.UNKNOWN):
            _report_unknown(path, root, faults)
        case OptionFault(FaultKind.MISSING):
            _report_missing(str(fault.path[-1]), path, span, faults)
        case OptionFault(FaultKind.CHOICE, choices=choices):
            hint = did_you_mean(str(node.value), choices) or f"write {_either(choices)}"
            message = f"{name} must be {_either(choices)}, not {_shown(node)}"
            faults.add(Code.VALUE, message, span, hint=hint)
        case OptionFault(FaultKind.BOUND, wanted=wanted):
            label = f"found {_shown(node)}"
            faults.add(Code.VALUE, f"{name} must be {wanted}", span, label=label)
        case OptionFault(unfit=unfit) if path == ("prefix",) and isinstance(node.value, str) and unfit:
            faults.add(unfit.code, f"{name} {_unfit(node)}", span, hint=unfit.hint)
        case OptionFault(unfit=unfit) if unfit is not None:
            message = f"{name} expects {unfit.wanted}, found {_shown(node)}"
            faults.add(unfit.code, message, span, hint=unfit.hint)
        case _ if path == ("routes",) and node.value is None:
            _report_missing("routes", path, span, faults)
        case _:
            _report_type(fault.wanted, path, node, span, faults)


def _report_type(wanted: str, path: Steps, node: YamlNode, span: Span, faults: Faults) -> None:
    hint = "remove the quotes" if _quoted(wanted, node) else ""
    if not path:
        wanted = "a mapping with `routes`"
    elif len(path) == 4 and path[2] == "consumers":
        wanted = "a handler, or a mapping with `handler`"
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
    message = f"{_name(path)} expects {wanted}, found {_shown(node)}"
    faults.add(Code.WRONG_TYPE, message, span, hint=hint)


def _report_unknown(path: Steps, root: YamlNode, faults: Faults) -> None:
    option, here, span = str(path[-1]), _model_at(path[:-1]), root.name_at(path)
    close = _similar(option, here)
    homes = [where for model, where in _HOMES.items() if option in _options(model)]
    if here is FileModel and "." in option:
        hint = "routing keys go under `routes`"
    elif here in _ROUTING and (meant := hint_of_synonym(option)):
        hint = meant
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


def _model_at(path: Steps) -> type[Model]:
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


def _similar(name: str, model: type[Model]) -> str:
    """Return the option of a model that is spelt like `name`, or an empty string."""
    return suggestion(name.lower(), _options(model)) or ""


def _options(model: type[Model]) -> Sequence[str]:
    return model.__struct_encode_fields__


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


def _quoted(wanted: str, node: YamlNode) -> bool:
    """Return whether the value would be right without its quotes."""
    number = wanted in {"a whole number", "a number"} and re.fullmatch(r"[0-9]+(\.[0-9]+)?", node.text)
    return not node.plain and bool(
        number or (wanted == "`true` or `false`" and node.text in {"true", "false"})
    )


def _either(options: Sequence[str]) -> str:
    quoted = [f"`{option}`" for option in options]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
