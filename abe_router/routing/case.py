"""A case of the file's `tests`: messages to publish, and the outcomes that are expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from abe_router.messages.pointer import escape

#: What can become of a message; the last kind is that nothing does.
OutcomeKind = Literal["handled", "dead", "emitted", "rejected", "skipped", "nothing"]

#: Longest value that a difference shows, in characters.
MAX_SHOWN = 200

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class FilePosition:
    """Where the routes file has it; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Publication:
    """A message that a case publishes. An unchecked one skips the schemas, like one of another program."""

    key: str
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class PayloadMatcher:
    """Compares payloads with an expected one, exactly, or with more members allowed in its objects."""

    value: Any
    exactly: bool = True

    def differences(self, found: Any) -> list[str]:
        """Return each difference of `found` as a line; none when it is as expected."""
        return list(_differences(self.value, found, "", exactly=self.exactly))


@dataclass(frozen=True, slots=True)
class Expectation:
    """One expected outcome. A field that is None matches anything.

    `name` is a route, `key/group`; for emitted and rejected messages it is a key. `pointer`, `keyword` and
    `error` describe the reason: the value that is wrong, the keyword it breaks, and a part of the text.
    """

    what: OutcomeKind
    position: FilePosition
    name: str | None = None
    payload: PayloadMatcher | None = None
    kind: str | None = None
    pointer: str | None = None
    keyword: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One test: messages and their expected outcomes. Its name is unique in the file."""

    name: str
    position: FilePosition
    publish: tuple[Publication, ...]
    expect: tuple[Expectation, ...] = ()


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = _encode(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _differences(expected: Any, found: Any, pointer: str, *, exactly: bool) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            below = f"{pointer}/{escape(name)}"
            if name in found:
                yield from _differences(value, found[name], below, exactly=exactly)
            else:
                yield f"at {below}: expected {shown(value)}, found nothing"
        for name in [name for name in found if exactly and name not in expected]:
            below = f"{pointer}/{escape(name)}"
            yield f"at {below}: expected nothing, found {shown(found[name])}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{pointer}/{index}", exactly=exactly)
    # To Python `True` is 1; to JSON it is not.
    elif isinstance(expected, bool) is not isinstance(found, bool) or expected != found:
        yield f"at {pointer or '(root)'}: expected {shown(expected)}, found {shown(found)}"
