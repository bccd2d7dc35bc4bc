"""A form for the payload of a key: its inputs, and the payload that the texts in them stand for.

The texts of a form are in one mapping, named by a letter and the concrete JSON pointer of the value:

- `p:/customer/id` is a plain text, a number or a choice. An empty one is left out, as are an array without
  items and an object without members.
- `j:/meta` is JSON. It stands for a value that has no input of its own, or that does not fit into its input,
  such as null or an empty text.
- `n:/items` is the number of items of an array.
- `x:/customer` is an object in JSON, whose members go beside those that have an input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from abe_router.messages.pointer import escape
from abe_router.operations.payload_fields import PayloadField

#: Most items of an array that have inputs.
MOST_ITEMS = 50
#: Longest JSON number. A longer text is no number.
MAX_NUMBER = 400
Kind = Literal["group", "list", "text", "lines", "secret", "number", "choice", "json", "other"]
Texts = Mapping[str, str]

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
#: What stands for a value that is left out.
_ABSENT = msgspec.UNSET


@dataclass(frozen=True)
class Input:
    """One input of the form, or a group of inputs.

    `options` are the texts and the labels of a choice. `is_removable` is set for the items of an array.
    """

    kind: Kind
    name: str
    label: str
    about: PayloadField
    text: str = ""
    options: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] = ()
    is_removable: bool = False

    @property
    def pointer(self) -> str:
        """The JSON pointer of the value."""
        return self.name[2:]


@dataclass
class Built:
    """A payload that a form stands for, as JSON, and the texts that are not what their inputs need."""

    body: bytes = b""
    faults: dict[str, str] = field(default_factory=dict)


def has_inputs(about: PayloadField) -> bool:
    """Return whether a payload can be written in more inputs than one for JSON."""
    return bool(about.members)


def first_texts(about: PayloadField) -> Texts:
    """Return the texts of a new form: defaults, the only choice of a required value, one item of a list."""
    return dict(_first(about, ""))


def texts_of(about: PayloadField, value: Any) -> Texts:
    """Return the texts of a form for a payload."""
    return dict(_written(about, "", value))


def inputs_of(about: PayloadField, texts: Texts) -> Input:
    """Return the inputs of a form with the texts in them."""
    return _input(about, "", texts, "payload")


def build(about: PayloadField, texts: Texts) -> Built:
    """Return the payload that the texts of a form stand for."""
    built = Built()
    value = _build(about, "", texts, built)
    built.body = msgspec.json.encode({} if value is _ABSENT else value)
    return built


def with_item(texts: Texts, pointer: str) -> Texts:
    """Return the texts of a form with one more item in an array."""
    return {**texts, f"n:{pointer}": str(min(_count(texts, pointer) + 1, MOST_ITEMS))}


def without_item(texts: Texts, pointer: str) -> Texts:
    """Return the texts of a form without one item of an array."""
    array, _, at = pointer.rpartition("/")
    if not at.isdecimal() or not at.isascii() or len(at) > 4 or int(at) >= _count(texts, array):
        return texts
    removed = int(at)
    place = re.compile(rf"([pjnx]:{re.escape(array)}/)([0-9]{{1,4}})(/.*)?", re.DOTALL)
    found: dict[str, str] = {}
    for name, text in texts.items():
        match = place.fullmatch(name)
        if match is None:
            found[name] = text
        elif int(match[2]) != removed:
            index = int(match[2]) - (int(match[2]) > removed)
            found[f"{match[1]}{index}{match[3] or ''}"] = text
    return {**found, f"n:{array}": str(_count(texts, array) - 1)}


def _input(
    about: PayloadField, pointer: str, texts: Texts, label: str, *, is_removable: bool = False
) -> Input:
    def made(kind: Kind, letter: str = "p", **more: Any) -> Input:
        name = f"{letter}:{pointer}"
        return Input(kind, name, label, about, texts.get(name, ""), is_removable=is_removable, **more)

    if f"j:{pointer}" in texts:
        return made("json", "j")
    if about.choices:
        return made("choice", options=tuple(map(_option, about.choices)))
    match _type(about):
        case "object" if about.members:
            inputs = [
                _input(member, f"{pointer}/{escape(member.name)}", texts, member.name)
                for member in about.members
            ]
            other = f"x:{pointer}"
            if about.is_open and (not pointer or other in texts):
                inputs.append(Input("other", other, "other members", about, texts.get(other, "")))
            return made("group", inputs=tuple(inputs))
        case "array" if about.item is not None:
            items = [
                _input(about.item, f"{pointer}/{at}", texts, f"{label} {at + 1}", is_removable=True)
                for at in range(_count(texts, pointer))
            ]
            return made("list", "n", inputs=tuple(items))
        case "string":
            long = "\n" in texts.get(f"p:{pointer}", "")
            return made("secret" if about.is_sensitive else "lines" if long else "text")
        case "integer" | "number":
            return made("number")
        case "boolean":
            return made("choice", options=(("true", "true"), ("false", "false")))
    return made("json", "j")


def _build(about: PayloadField, pointer: str, texts: Texts, built: Built) -> Any:
    if (text := texts.get(f"j:{pointer}")) is not None:
        return _parsed(text, f"j:{pointer}", built)
    text = texts.get(f"p:{pointer}", "")
    if about.choices:
        return _parsed(text, f"p:{pointer}", built)
    match _type(about):
        case "object" if about.members:
            members = _parsed(texts.get(f"x:{pointer}", ""), f"x:{pointer}", built)
            if members is not _ABSENT and not isinstance(members, dict):
                built.faults[f"x:{pointer}"] = "is not an object in JSON"
                members = _ABSENT
            found: dict[str, Any] = {}
            for member in about.members:
                value = _build(member, f"{pointer}/{escape(member.name)}", texts, built)
                if value is not _ABSENT:
                    found[member.name] = value
            found |= {} if members is _ABSENT else members
            return found or _ABSENT
        case "array" if about.item is not None:
            items = (
                _build(about.item, f"{pointer}/{at}", texts, built) for at in range(_count(texts, pointer))
            )
            values = [item for item in items if item is not _ABSENT]
            return values or _ABSENT
        case "string":
            return text or _ABSENT
        case "integer" | "number":
            number = text.strip()
            if not number:
                return _ABSENT
            is_number = len(number) <= MAX_NUMBER and _NUMBER.fullmatch(number)
            return msgspec.Raw(number.encode()) if is_number else text
        case "boolean":
            return _parsed(text, f"p:{pointer}", built)
    return _ABSENT


def _written(about: PayloadField, pointer: str, value: Any) -> Iterator[tuple[str, str]]:
    kind = _type(about)
    text = msgspec.json.encode(value).decode()
    if about.choices:
        is_choice = any(text == option for option, _ in map(_option, about.choices))
        yield (f"p:{pointer}" if is_choice else f"j:{pointer}"), text
    elif kind == "object" and about.members and isinstance(value, dict) and (value or not pointer):
        named = {member.name: member for member in about.members}
        for name, member in value.items():
            if name in named:
                yield from _written(named[name], f"{pointer}/{escape(name)}", member)
        if others := {name: member for name, member in value.items() if name not in named}:
            yield f"x:{pointer}", _indented(others)
    elif (
        kind == "array"
        and about.item is not None
        and isinstance(value, list)
        and 0 < len(value) <= MOST_ITEMS
    ):
        yield f"n:{pointer}", str(len(value))
        for at, item in enumerate(value):
            yield from _written(about.item, f"{pointer}/{at}", item)
    elif kind == "string" and isinstance(value, str) and value and "\r" not in value:
        yield f"p:{pointer}", value
    elif (
        kind in ("integer", "number")
        and isinstance(value, int | float | msgspec.Raw)
        and not isinstance(value, bool)
    ) or (kind == "boolean" and isinstance(value, bool)):
        yield f"p:{pointer}", text
    else:
        yield f"j:{pointer}", _indented(value)


def _first(about: PayloadField, pointer: str) -> Iterator[tuple[str, str]]:
    if about.default is not msgspec.UNSET:
        yield from _written(about, pointer, about.default)
    elif len(about.choices) == 1 and about.is_required:
        yield f"p:{pointer}", _option(about.choices[0])[0]
    elif _type(about) == "array" and about.item is not None and about.is_required:
        yield f"n:{pointer}", "1"
        yield from _first(about.item, f"{pointer}/0")
    elif about.is_required or not pointer:
        for member in about.members:
            yield from _first(member, f"{pointer}/{escape(member.name)}")


def _parsed(text: str, name: str, built: Built) -> Any:
    """Return the value of JSON, left out if it is empty; note a fault if it is not JSON."""
    if not text.strip():
        return _ABSENT
    try:
        return decode(text.encode("utf-8", "surrogatepass"))
    except PayloadMalformed as error:
        built.faults[name] = str(error).removeprefix("payload ")
        return _ABSENT


def _type(about: PayloadField) -> str:
    """Return the only type of a value besides null; empty if there are more."""
    kinds = [kind for kind in about.kinds if kind != "null"]
    return kinds[0] if len(kinds) == 1 else ""


def _option(value: Any) -> tuple[str, str]:
    text = msgspec.json.encode(value).decode()
    return text, value if isinstance(value, str) and value else text


def _count(texts: Texts, pointer: str) -> int:
    text = texts.get(f"n:{pointer}", "0")
    return min(int(text), MOST_ITEMS) if text.isascii() and text.isdecimal() and len(text) < 5 else 0


def _indented(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
