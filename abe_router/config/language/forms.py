"""The base of the language: mappings of options, and values that the file writes in a form of their own."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, ClassVar, Self, get_args

from msgspec import Meta, Struct

from abe_router.config.language.pointer import suggest_pointer
from abe_router.config.reading.code import Code
from abe_router.messages.pointer import POINTER_PATTERN, is_pointer
from abe_router.text import (
    DURATION_PATTERN,
    RATE_PATTERN,
    parse_duration,
    parse_rate,
    suggest_duration,
    suggest_rate,
)


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file: unknown members are refused, and no value is converted to another type.

    A text may stand for the mapping whose member `short` it is. One value may stand for a tuple of them.
    """

    short: ClassVar[str] = ""


class Unfit(ValueError):
    """Raised for a value that does not have the form of its option; `wanted` says what would."""

    def __init__(self, wanted: str, hint: str = "", code: Code = Code.VALUE) -> None:
        self.wanted, self.hint, self.code = wanted, hint, code
        super().__init__(wanted)


class Text(str):
    """A text of a certain form. `check` raises Unfit for any other value; `schema` is for editors."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]]

    def __new__(cls, value: Any) -> Self:
        """Return a value of the file as this kind of text, or raise Unfit."""
        cls.check(value)
        return super().__new__(cls, value)

    @classmethod
    def check(cls, value: Any) -> None:
        """Raise Unfit when the value does not have the form."""
        raise NotImplementedError


class Number(float):
    """A number that the file writes as `text`. `read` returns it or raises Unfit; `schema` is for editors."""

    __slots__ = ("text",)
    schema: ClassVar[dict[str, Any]]
    text: str

    def __new__(cls, value: Any) -> Self:
        """Return a value of the file as a number, or raise Unfit."""
        number = super().__new__(cls, cls.read(value))
        number.text = value
        return number

    @classmethod
    def read(cls, value: Any) -> float:
        """Return the number that the value stands for, or raise Unfit."""
        raise NotImplementedError


def read_form(kind: Any, value: Any) -> Any:
    """Return a value of the file as one of a form, for `msgspec.convert`."""
    return kind(value)


def plain(value: Any) -> Any:
    """Return the value of an option without the form that the file has for it."""
    return float(value) if isinstance(value, Number) else str(value) if isinstance(value, Text) else value


class Duration(Number):
    """A length of time, in seconds."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": DURATION_PATTERN}

    @classmethod
    def read(cls, value: Any) -> float:
        """Return the seconds."""
        try:
            return parse_duration(value if isinstance(value, str) else "")
        except ValueError as error:
            meant = suggest_duration(str(value)) or "30s"
            hint = "the longest duration is a year: `8784h`" if "longer" in str(error) else f"write `{meant}`"
            raise Unfit("a duration", hint, Code.DURATION) from None


class PositiveDuration(Duration):
    """A length of time above zero, in seconds."""

    __slots__ = ()

    @classmethod
    def read(cls, value: Any) -> float:
        """Return the seconds."""
        if (seconds := super().read(value)) == 0:
            raise Unfit("a duration above zero", "write `30s`", Code.DURATION)
        return seconds


class Rate(Number):
    """A rate, in messages per second."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": RATE_PATTERN}

    @classmethod
    def read(cls, value: Any) -> float:
        """Return the messages per second."""
        try:
            return parse_rate(value if isinstance(value, str) else "")
        except ValueError as error:
            hint = f"write `{suggest_rate(str(value)) or '100/s'}`"
            if str(value).startswith("0/"):
                hint = "to stop a route, write `paused: true`"
            elif "between" in str(error):
                hint = "a rate is at least one message a year and at most `1000000/s`"
            raise Unfit("a rate", hint, Code.RATE) from None


class Start(Number):
    """Where a new group begins, in seconds since the epoch: 0 is the earliest message, infinity the next."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {
        "anyOf": [{"enum": ["earliest", "latest"]}, {"type": "string", "format": "date-time"}]
    }

    @classmethod
    def read(cls, value: Any) -> float:
        """Return the time."""
        if value in ("earliest", "latest"):
            return 0.0 if value == "earliest" else math.inf
        try:
            moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        except ValueError:
            hint = "write `earliest`, `latest` or a time such as `2026-01-31T09:00:00Z`"
            raise Unfit("`earliest`, `latest` or a time", hint, Code.TIMESTAMP) from None
        if moment.tzinfo is None:
            hint = f"write `{moment.isoformat()}Z` for UTC"
            raise Unfit("a time with a UTC offset", hint, Code.TIMESTAMP)
        return max(0.0, moment.timestamp())


class Pointer(Text):
    """A JSON pointer to a part of a payload."""

    __slots__ = ()
    schema: ClassVar[dict[str, Any]] = {"type": "string", "pattern": POINTER_PATTERN}

    @classmethod
    def check(cls, value: Any) -> None:
        """Raise Unfit when the value is no pointer."""
        if isinstance(value, str) and is_pointer(value):
            return
        meant = suggest_pointer(value) if isinstance(value, str) else ""
        hint = f"write `{meant}`" if meant else "write a pointer such as `/customer/id`"
        raise Unfit("a JSON pointer", hint, Code.POINTER)


#: What a list of at least one item has.
SOME = Meta(min_length=1)


def about(description: str, **limits: Any) -> Meta:
    """Return what an option is for, and what limits its value."""
    return Meta(description=description, **limits)


def choice(kind: Any) -> Meta:
    """Return the values of a `Literal` in their order, which msgspec does not keep."""
    return Meta(extra={"choices": get_args(kind)})
