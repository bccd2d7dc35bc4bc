"""Deduplication: the id of a message, and how long it is remembered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from abe_router.errors import IdInvalid
from abe_router.messages.pointer import find

#: Longest id, in characters. A backend remembers each id for a while.
MAX_ID = 255
#: The name of a header that may hold ids, as a regular expression.
HEADER_PATTERN = r"^[A-Za-z0-9_.:-]{1,128}$"
#: Beyond it a JSON number with a point or an exponent may stand for several integers (IEEE 754, binary64).
_EXACT = 2.0**53


def is_header(text: str) -> bool:
    """Return whether `text` is the name of a header that may hold ids."""
    return re.fullmatch(HEADER_PATTERN, text) is not None


@dataclass(frozen=True, slots=True)
class Deduplication:
    """Where the ids of messages come from, and how long they are remembered.

    `source` is a JSON pointer into the payload, or the name of a header. Without a source the publisher sets
    the id. A message is a duplicate when one with its key and id was accepted less than `window` seconds ago.
    A window of 0 remembers nothing.
    """

    window: float = 0.0
    source: str = ""

    @staticmethod
    def combined(each: Iterable[Deduplication]) -> Deduplication | None:
        """Return the combination of several: the longest window, and the one source that they may name."""
        parts = tuple(each)
        if not parts:
            return None
        return Deduplication(max(p.window for p in parts), next((p.source for p in parts if p.source), ""))

    def id(self, key: str, payload: Any, headers: Mapping[str, str], given: str | None = None) -> str | None:
        """Return the id of a message, None when neither a source nor the publisher sets one.

        Raise IdInvalid when the source has no id, when its value cannot be an id, or when `given` differs.
        """
        if not self.source:
            return None if given is None else _fit(key, given, "the id given")
        where = self._where()
        try:
            value = find(payload, self.source) if self.source[0] == "/" else _header(headers, self.source)
        except LookupError:
            raise IdInvalid(key, f"{where} is to be its id, and is not there") from None
        id = _fit(key, value, where)
        if given is not None and given != id:
            raise IdInvalid(key, f"{where} is its id, and the one given, `{given[:MAX_ID]}`, is another")
        return id

    def window_of(self, given: str | None) -> float:
        """Return how long an id is remembered, in seconds; `given` is the id that the publisher set.

        A generated id never comes again, so it is not remembered.
        """
        return self.window if self.source or given is not None else 0.0

    def _where(self) -> str:
        return f"the value at {self.source}" if self.source[0] == "/" else f"the header `{self.source}`"


def _header(headers: Mapping[str, str], name: str) -> str:
    """Return the value of a header; raise LookupError if there is none, or several.

    Web servers change the case of names, so it counts only if two differ by it.
    """
    if name in headers:
        return headers[name]
    values = [value for other, value in headers.items() if other.lower() == name.lower()]
    if len(values) != 1:
        raise LookupError(name)
    return values[0]


def _fit(key: str, value: Any, where: str) -> str:
    """Return a value as an id. 7 and 7.0 give the same id, for in JSON they are one number."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise IdInvalid(key, f"{where} is to be its id, and is {_kind(value)}, neither text nor an integer")
    if not value:
        raise IdInvalid(key, f"{where} is to be its id, and is empty")
    if len(value) > MAX_ID:
        raise IdInvalid(key, f"{where} is to be its id, and is {len(value):,} characters, over {MAX_ID}")
    return value


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case float():
            return "a number with a fraction, or too large to be exact"
        case list():
            return "an array"
    return "an object"
