"""Masks sensitive values of payloads in a text that may quote them, such as that of a handler's error."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Any

from abe_router.errors import PayloadMalformed
from abe_router.messages.message import decode
from abe_router.schema.schema import Schema
from abe_router.schema.sensitive import MASKED

#: A value of at least so many characters is masked wherever it stands, and a shorter one as a whole word.
ANYWHERE = 4
#: Of a value, a beginning or an end of at least so many characters is masked too: what quotes it may cut it.
FRAGMENT = 8
#: Most values that are looked for, and most characters of a text times the forms of values. It takes 0.2 s.
MOST_VALUES, MOST_WORK = 1_000, 1_000_000


class TextMask:
    """Masks what the schemas of some messages mark as `x-sensitive` in texts that quote the messages.

    Strings and numbers are found as they are, in the form of Python's `repr`, and in that of JSON, also if
    one is quoted within the other. True, false and null are not masked, and neither are names of members that
    a schema has. A text is masked as a whole if a payload does not have the shape of its schema, is not JSON,
    or has more values than can be looked for.

    `messages` returns the bodies with their schemas. It is called when there is a text to mask.
    """

    def __init__(self, messages: Callable[[], Iterable[tuple[Schema, bytes]]]) -> None:
        self._messages = messages

    def hide(self, text: str) -> str:
        """Return a text with `(masked)` in place of sensitive values."""
        forms = self._forms
        if forms is None or len(text) * len(forms) > MOST_WORK:
            return MASKED if text else text
        for form in forms:  # the whole ones first: a part of one may be the beginning of another
            text = _without(form, text)
        for backwards in (1, -1):
            long = [form[::backwards] for form in forms if len(form) > FRAGMENT]
            text = _without_beginnings(long, text[::backwards], MASKED[::backwards])[::backwards]
        return text

    @cached_property
    def _forms(self) -> Collection[str] | None:
        """The forms of all sensitive values, the longest first; None if all of a text is masked."""
        found, names, values = set[str](), set[str](), list[Any]()
        for schema, body in self._messages():
            try:
                parts = schema.sensitive_parts(decode(body))
            except PayloadMalformed:
                return None
            if parts is None:
                return None
            names |= schema.names()
            values += parts
        for number, value in enumerate(_scalars(values, names)):
            if number == MOST_VALUES:
                return None
            found.update(_texts(value) if isinstance(value, str) else _numbers(value))
        return sorted((form for form in found if any(map(str.isalnum, form))), key=len, reverse=True)


def _scalars(values: list[Any], names: Collection[str]) -> Iterator[Any]:
    """Yield the strings and the numbers in some values, and the names of members except `names`."""
    while values:
        match values.pop():
            case dict() as members:
                values += members.values()
                yield from (name for name in members if name not in names)
            case list() as items:
                values += items
            case bool() | None:
                pass
            case scalar:
                yield scalar


def _texts(value: str) -> set[str]:
    """Return a string as it is, as `repr` and JSON write it, and as each of them writes such a form."""
    found = {value, repr(value.encode(errors="replace"))[2:-1]}
    for _ in range(2):
        for form in tuple(found):
            found |= {repr(form)[1:-1], json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]}
            found.add(repr(f'"{form}')[2:-1])  # within a text that has quotes itself, `repr` escapes others
    return found


def _numbers(value: float) -> set[str]:
    amount = abs(value)
    return {str(value), str(amount), f"{amount:,}", str(int(amount)) if amount == int(amount) else ""}


def _without(form: str, text: str) -> str:
    """Return a text without a form of a value."""
    if len(form) >= ANYWHERE:
        return text.replace(form, MASKED)
    return re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MASKED, text) if form in text else text


def _without_beginnings(forms: Iterable[str], text: str, shown: str) -> str:
    """Return a text with `shown` in place of the longest beginning of a form wherever one is long enough."""
    by_head: dict[str, list[str]] = {}
    for form in forms:
        by_head.setdefault(form[:FRAGMENT], []).append(form)
    for head, same in by_head.items():
        pieces, at = list[str](), 0
        while (start := text.find(head, at)) >= 0:
            pieces += text[at:start], shown
            at = max(_end(form, text, start) for form in same)
        text = "".join((*pieces, text[at:]))
    return text


def _end(form: str, text: str, start: int) -> int:
    """Return where in a text the beginning of a form ends that starts there."""
    end, most = start, min(len(text), start + len(form))
    while end < most and text[end] == form[end - start]:
        end += 1
    return end
