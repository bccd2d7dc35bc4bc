"""Payloads and tracebacks as lines of a page: what failed is marked, and what is the user's stands out.

The lines are text in parts, each with a class of the style sheet. The templates escape them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from abe_router.messages.pointer import escape
from abe_router.operations.fingerprint import is_own
from abe_router.schema.sensitive import MASKED
from abe_router.text import printable

#: An object or an array that fits is one line of so many characters.
WIDTH = 76
#: Most lines of a page, most lines that are looked at for a mark, and lines shown around one.
MOST_LINES, MOST_READ, AROUND = 1_000, 50_000, 4
#: Longest text of one value, in characters.
LONGEST = 2_000
#: What stands for a masked value.
DOTS = "••••••"

#: A class and a text.
Part = tuple[str, str]


@dataclass(frozen=True)
class PayloadLine:
    """A line of a payload. `mark` says what is wrong with it, or is None."""

    parts: tuple[Part, ...]
    mark: str | None = None


@dataclass(frozen=True)
class PayloadView:
    """The lines of a payload; `left_out` further ones are not among them. `masked` counts masked values."""

    lines: Sequence[PayloadLine]
    left_out: int
    masked: int


class _Exact(str):
    """A number as the payload has it: `131.40`."""

    __slots__ = ()


def payload_view(payload: Any, marks: Mapping[str, str]) -> PayloadView:
    """Return the lines of a payload as `masked_payload` returns it.

    `marks` has what is wrong at a JSON pointer. Of a large payload, the first lines and those near marks are
    returned.
    """
    if isinstance(payload, str):  # it is no JSON, or masked as a whole
        text = DOTS if payload == MASKED else payload
        shown = [
            PayloadLine((("d" if payload == MASKED else "", printable(line)),)) for line in text.splitlines()
        ]
        return PayloadView(shown[:MOST_LINES], max(0, len(shown) - MOST_LINES), payload == MASKED)
    if isinstance(payload, msgspec.Raw):
        payload = json.loads(bytes(payload), parse_float=_Exact)
    lines: list[PayloadLine] = []
    left_out = 0
    before: list[PayloadLine] = []
    after = 0
    above = {at[:end] for at in marks for end in range(len(at)) if at[end] == "/"}
    for number, line in enumerate(_lines(payload, "", "", (), "", marks, above)):
        if number < MOST_LINES:
            lines.append(line)
        elif line.mark is not None:
            lines += [*before, line]
            left_out -= len(before)
            before, after = [], AROUND
        elif after:
            lines.append(line)
            after -= 1
        else:
            before = [*before, line][-AROUND:]
            left_out += 1
        if number > MOST_READ:
            break
    masked = sum(part == ("d", f'"{DOTS}"') for line in lines for part in line.parts)
    return PayloadView(lines, left_out, masked)


def _lines(
    value: Any,
    pointer: str,
    indent: str,
    key: tuple[Part, ...],
    comma: str,
    marks: Mapping[str, str],
    above: Container[str],
) -> Iterator[PayloadLine]:
    """Yield the lines of a value. `key` stands before it, and `comma` after it.

    `above` has the pointers of the values that contain a mark: these are more than one line.
    """
    is_whole = not pointer and isinstance(value, dict | list) and value
    inline = None if is_whole or pointer in above else _inline(value, WIDTH - len(indent))
    if inline is not None or not value or not isinstance(value, dict | list):
        parts = (("", indent), *key, *(inline or (_scalar(value),)), ("", comma))
        yield PayloadLine(parts, marks.get(pointer))
        return
    is_object = isinstance(value, dict)
    opened, closed = "{}" if is_object else "[]"
    yield PayloadLine((("", indent), *key, ("", opened)), marks.get(pointer))
    last = len(value) - 1
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for at, (name, each) in enumerate(items):
        own: tuple[Part, ...] = (("d", f"{_text(name)}: "),) if is_object else ()
        below = f"{pointer}/{escape(name)}"
        yield from _lines(each, below, f"{indent}  ", own, "," if at < last else "", marks, above)
    yield PayloadLine((("", f"{indent}{closed}{comma}"),))


def _inline(value: Any, room: int) -> list[Part] | None:
    """Return a value as parts of one line, None if it has more than `room` characters."""
    if not isinstance(value, dict | list):
        part = _scalar(value)
        return [part] if len(part[1]) <= room else None
    is_object = isinstance(value, dict)
    opened, closed = "{}" if is_object else "[]"
    parts: list[Part] = [("", opened)]
    room -= 2
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for at, (name, each) in enumerate(items):
        if at:
            parts.append(("", ", "))
            room -= 2
        if is_object:
            parts.append(("d", f"{_text(name)}: "))
            room -= len(parts[-1][1])
        inner = _inline(each, room)
        if inner is None:
            return None
        parts += inner
        room -= sum(len(text) for _, text in inner)
        if room < 0:
            return None
    return [*parts, ("", closed)]


def _scalar(value: Any) -> Part:
    if value == MASKED and not isinstance(value, _Exact):
        return "d", f'"{DOTS}"'
    if isinstance(value, _Exact):
        return "", str(value)
    return "", _text(value)


def _text(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]}… {more:,} more characters"


_FILE = re.compile(r'^ +File "([^"\n]+)", line [0-9]+')
_INTRODUCTIONS = ("Traceback (most", "During handling", "The above exception")


def traceback_view(text: str) -> Sequence[Part]:
    """Return a traceback as blocks: `own` for the user's frames, `e` for the error, `d` for the rest."""
    blocks: list[tuple[str, list[str]]] = []
    kind = "d"
    for line in printable_lines(text):
        if frame := _FILE.match(line):
            kind = "own" if is_own(frame[1]) else "d"
            blocks.append((kind, [line]))
            continue
        if not line or line.startswith(_INTRODUCTIONS):
            kind = "d"
        elif not line.startswith(" "):
            kind = "e"
        if blocks and blocks[-1][0] == kind:
            blocks[-1][1].append(line)
        else:
            blocks.append((kind, [line]))
    return [(kind, "\n".join(lines)) for kind, lines in blocks]


def printable_lines(text: str) -> Sequence[str]:
    """Return the lines of a text without characters that a page cannot show."""
    return [printable(line) for line in text.rstrip("\n").split("\n")]
