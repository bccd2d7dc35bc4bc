"""Walks through a file along the types of the model, as msgspec describes them.

`expand` writes its short forms in full, for msgspec to read. msgspec stops at the first fault, so
`option_faults` finds every value that the language does not allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from abe_router.config.language.forms import Model, Number, Text, Unfit, read_form

Steps = tuple[str | int, ...]


class FaultKind(Enum):
    """What a fault is."""

    UNKNOWN = "an option that the model does not have"
    MISSING = "an option that the model needs; the path leads to where it is missing"
    CHOICE = "none of the values that are allowed"
    BOUND = "a number beyond a limit"
    TYPE = "a value of another type"
    FORM = "a value that does not have the form of its option"


class OptionFault(NamedTuple):
    """A fault, and the path to it. `wanted` says what would be right; a choice has its `choices`."""

    kind: FaultKind
    path: Steps
    wanted: str = ""
    choices: tuple[str, ...] = ()
    unfit: Unfit | None = None


_WANTED: dict[type[inspect.Type], tuple[type | tuple[type, ...], str]] = {
    inspect.BoolType: (bool, "`true` or `false`"),
    inspect.DictType: (dict, "a mapping"),
    inspect.FloatType: ((int, float), "a number"),
    inspect.IntType: (int, "a whole number"),
    inspect.ListType: (list, "a list"),
    inspect.StrType: (str, "text"),
    inspect.StructType: (dict, "a mapping"),
    inspect.VarTupleType: (list, "a list"),
}


@cache
def type_of(model: type[Model]) -> inspect.StructType:
    """Return the type of a model, as msgspec describes it."""
    kind = inspect.type_info(model)
    assert isinstance(kind, inspect.StructType)
    return kind


def model_of(kind: inspect.StructType) -> type[Model]:
    """Return the model that a type describes."""
    assert issubclass(kind.cls, Model)
    return kind.cls


def expand(value: Any, kind: inspect.Type) -> Any:
    """Return a value as msgspec reads it: with mappings for short forms, and lists for single values.

    What needs no change is the same object; what changes is copied.
    """
    kind, _ = _bare(kind)
    match kind:
        case inspect.VarTupleType():
            items = value if isinstance(value, list) else [value]
            return [expand(item, kind.item_type) for item in items]
        case inspect.DictType() if isinstance(value, dict):
            return {name: expand(item, kind.value_type) for name, item in value.items()}
        case inspect.StructType() if isinstance(value, str) and (short := model_of(kind).short):
            return {short: value}
        case inspect.StructType() if isinstance(value, dict):
            kinds = _nested(model_of(kind))
            return value | {name: expand(value[name], kinds[name]) for name in kinds if name in value}
    return value


@cache
def _nested(model: type[Model]) -> dict[str, inspect.Type]:
    """Return the types of the options of a model that may have short forms inside."""
    kinds = {field.encode_name: _bare(field.type)[0] for field in type_of(model).fields}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, _CONTAINERS)}


_CONTAINERS = (inspect.VarTupleType, inspect.DictType, inspect.StructType)


def _bare(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """Return a type without descriptions and alternatives, and what they say: `null`, `unfit`, `choices`."""
    said: dict[str, Any] = {}
    while True:
        if isinstance(kind, inspect.Metadata):
            said |= kind.extra or {}
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            others = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
            said["null"] = len(others) < len(kind.types)
            if len(others) > 1:
                return kind, said
            (kind,) = others
        else:
            return kind, said


def option_faults(value: Any, kind: inspect.Type, path: Steps = ()) -> Iterator[OptionFault]:
    """Yield the faults of a value that `expand` returned, in the order of the model."""
    kind, said = _bare(kind)
    if value is None and said.get("null"):
        return
    if isinstance(kind, inspect.UnionType):  # a filter
        if not isinstance(value, dict | bool):
            yield OptionFault(FaultKind.FORM, path, unfit=said["unfit"])
    elif isinstance(kind, inspect.CustomType):
        yield from _form_faults(value, kind.cls, path)
    elif isinstance(kind, inspect.LiteralType):
        if value not in kind.values:
            yield OptionFault(FaultKind.CHOICE, path, choices=said["choices"])
    elif type(kind) in _WANTED:
        allowed, wanted = _WANTED[type(kind)]
        if isinstance(value, allowed) and (allowed is bool or not isinstance(value, bool)):
            yield from _faults_inside(value, kind, path)
        else:
            yield OptionFault(FaultKind.TYPE, path, wanted)


def _faults_inside(value: Any, kind: inspect.Type, path: Steps) -> Iterator[OptionFault]:
    """Yield the faults of a value that has the type."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            yield from _bound_faults(value, kind, path)
        case inspect.ListType() | inspect.VarTupleType():
            if len(value) < (kind.min_length or 0):
                yield OptionFault(FaultKind.TYPE, path, "at least one item")
            for index, item in enumerate(value):
                yield from option_faults(item, kind.item_type, (*path, index))
        case inspect.DictType():
            for name, item in value.items():
                yield from option_faults(name, kind.key_type, (*path, name))
                yield from option_faults(item, kind.value_type, (*path, name))
        case inspect.StructType():
            yield from _model_faults(value, model_of(kind), path)


def _model_faults(value: dict[str, Any], model: type[Model], path: Steps) -> Iterator[OptionFault]:
    fields, clean = type_of(model).fields, True
    for field in fields:
        name = field.encode_name
        if name in value:
            for fault in option_faults(value[name], field.type, (*path, name)):
                clean = False
                yield fault
        elif field.required:
            clean = False
            yield OptionFault(FaultKind.MISSING, (*path, name))
    known = {field.encode_name for field in fields}
    for name in value:
        if name not in known:
            clean = False
            yield OptionFault(FaultKind.UNKNOWN, (*path, name))
    if clean and hasattr(model, "__post_init__"):  # it checks whether the options go together
        try:
            msgspec.convert(value, model, dec_hook=read_form)
        except msgspec.ValidationError as error:
            if isinstance(error.__cause__, Unfit):
                yield OptionFault(FaultKind.FORM, path, unfit=error.__cause__)


def _form_faults(value: Any, form: type[Text | Number], path: Steps) -> Iterator[OptionFault]:
    try:
        form(value)
    except Unfit as unfit:
        yield OptionFault(FaultKind.FORM, path, unfit=unfit)


def _bound_faults(
    value: float, kind: inspect.IntType | inspect.FloatType, path: Steps
) -> Iterator[OptionFault]:
    if kind.ge is not None and value < kind.ge:
        yield OptionFault(FaultKind.BOUND, path, f"at least {kind.ge:g}")
    elif kind.gt is not None and not value > kind.gt:
        yield OptionFault(FaultKind.BOUND, path, f"more than {kind.gt:g}")
    elif kind.le is not None and not value <= kind.le:
        yield OptionFault(FaultKind.BOUND, path, f"at most {kind.le:g}")
