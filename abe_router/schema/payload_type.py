"""The annotated type of a handler's payload, and the conversion of payloads to it.

msgspec converts to dataclasses, typed dictionaries and its own Structs, pydantic to its models. A handler
with another annotation gets the payload as it was decoded.
"""

from __future__ import annotations

import collections.abc
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from abe_router.errors import PayloadUnfit, SchemaInvalid, Violation, text_of
from abe_router.messages.pointer import join
from abe_router.schema.folder import SchemaFolder
from abe_router.schema.schema import Schema
from abe_router.text import foreign_detail

_EMPTY = inspect.Parameter.empty
#: From the first quotation mark of a text to the last.
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)
#: How pydantic names validators that see a value before its type does. What they accept is unknown.
_BEFORE = ("function-before", "function-wrap", "function-plain", "coerce_numbers_to_str': True")

#: Types of faults of pydantic, and the keyword of JSON Schema that means the same.
_SAME = {"missing": "required", "extra_forbidden": "additionalProperties"}

#: The classes of decoded JSON.
_DECODED = (dict, list, str, int, float, type(None))
#: Annotations that convert nothing, whatever is between their brackets.
_PLAIN = re.compile(r"(typing\.)?(Any|dict|Dict|Mapping|set|Set|tuple|Tuple|str|int|float|bool|None)\b|<")


class AnnotationUnusable(Exception):
    """Raised when payloads cannot be converted to an annotated type. `name` is how it is written."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class PayloadType:
    """The type to which payloads of a handler are converted.

    `annotation` is the type itself. `convert` converts a decoded payload, or raises PayloadUnfit. `each`
    does the same with the items of an annotated list, for batches; it is None where no list is annotated.
    `schema` is the type as JSON Schema, of the item where there is a list; None where it would not tell
    everything that is accepted.
    """

    name: str
    annotation: Any
    convert: Callable[[Any], Any]
    each: Callable[[Any], Any] | None = None
    schema: Any = None
    lax: bool = False


def payload_type_of(function: Callable[..., Any]) -> PayloadType | None:
    """Return the type of a handler's payload, or None if the handler takes decoded JSON.

    Raise AnnotationUnusable if it is annotated with a type that payloads cannot be converted to.
    """
    written: Any = _EMPTY
    try:
        written, scope = _annotation(function)
        annotation = _resolved(written, scope)
        return None if annotation is _EMPTY else _payload_type(annotation)
    except Exception as error:  # noqa: BLE001  evaluating annotations runs the user's code
        name = _written(written)
        if _PLAIN.match(name):
            return None
        raise AnnotationUnusable(name, text_of(error).partition("\n")[0]) from None


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _annotation(function: Any) -> tuple[Any, dict[str, Any]]:
    """Return the annotation of the first parameter as it is written, and the names of its module.

    Wrappers that take `*args` have the annotation of what they wrap.
    """
    while True:
        first = next(iter(inspect.signature(function, follow_wrapped=False).parameters.values()), None)
        inner = getattr(function, "__wrapped__", None)
        if first is None:
            return _EMPTY, {}
        if inner is None:
            break
        if first.kind is not first.VAR_POSITIONAL:
            return _EMPTY, {}  # the annotations of a wrapper are those of what it wraps, and it may convert
        function = inner
    target = function
    while isinstance(target, partial):
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    return first.annotation, getattr(target, "__globals__", {})


def _resolved(annotation: Any, scope: dict[str, Any]) -> Any:
    """Return an annotation with its names resolved. Generic types need no import at run time."""
    names = {**vars(collections.abc), **vars(typing), **scope}
    holder = SimpleNamespace(__annotations__={"payload": annotation})
    return typing.get_type_hints(holder, names, include_extras=True)["payload"]


def _payload_type(annotation: Any) -> PayloadType | None:
    bare, item = _bare(annotation), None
    if typing.get_origin(bare) in {list, Sequence}:
        (item,) = typing.get_args(bare)
    wanted = list(_members(annotation if item is None else item))
    if wanted and all(map(_is_foreign, wanted)):
        raise TypeError(
            "payloads are converted to dataclasses, TypedDicts, Structs and pydantic models alone"
        )
    if not wanted or not all(map(_is_structured, wanted)):
        return None
    make = _by_pydantic if any(map(_is_pydantic, wanted)) else _by_msgspec
    schema = _schema(annotation if item is None else item, lax=make is _by_pydantic)
    return PayloadType(
        name=getattr(annotation, "__name__", str(annotation)) if item is None else str(annotation),
        annotation=annotation,
        convert=make(annotation),
        each=None if item is None else make(item),
        schema=schema,
        lax=make is _by_pydantic,
    )


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union except None, or the type itself if it is no union."""
    bare = _bare(annotation)
    if typing.get_origin(bare) in {typing.Union, types.UnionType}:
        for member in typing.get_args(bare):
            yield from _members(member)
    elif bare is not type(None):
        yield bare


def _is_structured(kind: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    if not inspect.isclass(kind):
        return False
    return (
        is_dataclass(kind)
        or typing.is_typeddict(kind)
        or issubclass(kind, msgspec.Struct)
        or _is_pydantic(kind)
    )


def _is_foreign(kind: Any) -> bool:
    """Return whether it is a class that no decoded JSON is an instance of, and nothing is converted to."""
    if not inspect.isclass(kind) or _is_structured(kind) or inspect.isabstract(kind):
        return False
    return not getattr(kind, "_is_protocol", False) and not issubclass(kind, _DECODED) and kind is not object


def _is_pydantic(kind: Any) -> bool:
    """Return whether it is a model or a dataclass of pydantic, without importing pydantic."""
    return hasattr(kind, "__pydantic_validator__")


def _by_msgspec(annotation: Any) -> Callable[[Any], Any]:
    @cache
    def schema() -> Schema | None:
        document = msgspec.json.schema(annotation, schema_hook=_schema_of_member)
        with suppress(SchemaInvalid):  # for a pattern that is none of JSON Schema
            return SchemaFolder(Path(os.devnull), formats=False).inline(document, "type")
        return None

    def convert(payload: Any) -> Any:
        try:
            return msgspec.convert(payload, annotation, str_keys=True, dec_hook=_member)
        except msgspec.ValidationError as error:
            described = schema()
            violations = described.violations(payload) if described is not None else ()
            raise _unfit(violations, str(error)) from None

    return convert


def _member(kind: type, value: Any) -> Any:
    """Return a member of a type that msgspec does not support: a pydantic model."""
    if not _is_pydantic(kind):
        raise NotImplementedError
    return _validator_of(kind)(value)


@cache
def _validator_of(kind: type) -> Callable[[Any], Any]:
    return _by_pydantic(kind)


def _schema_of_member(kind: type) -> dict[str, Any]:
    if not _is_pydantic(kind):
        raise NotImplementedError
    return {"title": kind.__name__}


def _by_pydantic(annotation: Any) -> Callable[[Any], Any]:
    import pydantic

    validate = pydantic.TypeAdapter(annotation).validate_python

    def convert(payload: Any) -> Any:
        try:
            return validate(payload)
        except pydantic.ValidationError as error:
            # Its own text quotes values, and they must not reach a log.
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            places = [join(fault["loc"]) for fault in faults]
            told = [_said(place, fault["msg"]) for place, fault in zip(places, faults, strict=True)]
            raise PayloadUnfit("; ".join(told), places[0], _keyword(faults[0]["type"])) from None

    return convert


def _unfit(violations: Sequence[Violation], text: str) -> PayloadUnfit:
    """Return the fault of a payload that msgspec refuses: the first violation of the schema of the type.

    A validator of the user may refuse what the schema allows. Then its text is the detail, without what it
    quotes: values must not reach a log.
    """
    if not violations:
        return PayloadUnfit(f"at (root): it does not fit the type {foreign_detail(_QUOTED.sub('…', text))}")
    first = violations[0]
    what = f"{first.keyword}: expected {first.expected}"
    message = f"at {first.pointer or '(root)'}: it does not fit the type: {what}"
    return PayloadUnfit(message, first.pointer, first.keyword)


def _said(pointer: str, text: str) -> str:
    return f"at {pointer or '(root)'}: it does not fit the type {foreign_detail(text)}"


def _keyword(fault: str) -> str:
    """Return the keyword of JSON Schema that matches a type of fault of pydantic, or an empty string."""
    if fault in _SAME:
        return _SAME[fault]
    return "type" if fault.endswith(("_type", "_parsing")) else ""


def _schema(annotation: Any, *, lax: bool) -> Any:
    """Return the JSON Schema of a type; None where aliases or validators let it accept more than it tells.

    Raise TypeError for a type that msgspec cannot make.
    """
    if not lax:
        return msgspec.json.schema(annotation, schema_hook=_schema_of_member)
    import pydantic

    adapter = pydantic.TypeAdapter(annotation)
    schema = adapter.json_schema()
    hidden = schema != adapter.json_schema(by_alias=False) or any(
        kind in repr(adapter.core_schema) for kind in _BEFORE
    )
    return None if hidden else schema
