"""A case of the file's `tests`: what is published, and what is expected to come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

#: What can come of a message, and at last that nothing does.
What = Literal["handled", "dead", "emitted", "rejected", "skipped", "nothing"]

#: Longest value that a difference shows, in characters.
MAX_SHOWN = 200

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the routes file it is written; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Publication:
    """A message that a case publishes; an unchecked one is not held to the schemas, as from a stranger."""

    key: str
    payload: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None
    unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Likeness:
    """A payload as it is expected: exactly, or with any more members in its objects."""

    value: Any
    exactly: bool = True

    def differences(self, found: Any) -> list[str]:
        """Return what is different in `found`, a line for each place; none when it is as expected."""
        return list(_differences(self.value, found, "", exactly=self.exactly))


@dataclass(frozen=True, slots=True)
class Expectation:
    """One thing that is to happen; what is None may be anything.

    `name` is a route, `key/group`, and of what is emitted or rejected a key. `pointer`, `keyword` and `error`
    are of the reason: where the payload broke which keyword, and a part of the text.
    """

    what: What
    place: Place
    name: str | None = None
    payload: Likeness | None = None
    kind: str | None = None
    pointer: str | None = None
    keyword: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One test: messages, and what each of them comes to. No two cases of a file have one name."""

    name: str
    place: Place
    publish: tuple[Publication, ...]
    expect: tuple[Expectation, ...] = ()


def shown(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = _encode(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _differences(expected: Any, found: Any, pointer: str, *, exactly: bool) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if name in found:
                yield from _differences(value, found[name], below, exactly=exactly)
            else:
                yield f"at {below}: expected {shown(value)}, found nothing"
        for name in [name for name in found if exactly and name not in expected]:
            below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            yield f"at {below}: expected nothing, found {shown(found[name])}"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{pointer}/{index}", exactly=exactly)
    # To Python `True` is 1; to JSON it is not.
    elif isinstance(expected, bool) is not isinstance(found, bool) or expected != found:
        yield f"at {pointer or '(root)'}: expected {shown(expected)}, found {shown(found)}"
