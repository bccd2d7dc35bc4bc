"""One place at which a value breaks a schema, and the words for it.

The words quote the schema. Of the payload they quote scalars alone, cut to a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from abe_router.messages.pointer import escape, join
from abe_router.schema.index import Subschema
from abe_router.text import counted

#: Longest string or number that is quoted, longest expression of the schema, in characters.
MAX_QUOTED, MAX_EXPRESSION = 60, 200
#: Most alternatives that are listed.
MAX_LISTED = 8

_encode = msgspec.json.Encoder(decimal_format="number").encode


class Path:
    """The path to a value in a payload: the path of what holds it, and the last step."""

    __slots__ = ("_pointer", "applicable", "depth", "parent", "step")

    def __init__(self, parent: Path | None = None, step: str | int = "") -> None:
        self.parent, self.step = parent, step
        self.depth: int = 0 if parent is None else parent.depth + 1
        self._pointer: str | None = "" if parent is None else None
        #: The subschemas that may apply to the value, once they were looked for; see `sensitive`.
        self.applicable: Sequence[Subschema] | None = None

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer."""
        if self._pointer is None:
            parent = self.parent
            assert parent is not None
            # The parent keeps its own for the next sibling. The others do not: names may be long.
            if parent._pointer is None:  # noqa: SLF001  of the same class
                parent._pointer = join(node.step for node in parent.from_root()[1:])  # noqa: SLF001
            self._pointer = f"{parent._pointer}/{escape(self.step)}"  # noqa: SLF001
        return self._pointer

    def from_root(self) -> list[Path]:
        """Return the paths of everything on the way, the root first and this one last."""
        node: Path | None = self
        nodes: list[Path] = []
        while node is not None:
            nodes.append(node)
            node = node.parent
        nodes.reverse()
        return nodes


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A value that breaks one keyword of a subschema.

    `unquoted` replaces `expected` where the value is masked, for `expected` may quote what it should be.
    `found` describes what was found where that is not the value itself. `member` is the name of a member
    that is not allowed. `branches` are the mismatches of each alternative, for `anyOf` and `oneOf`.
    """

    path: Path
    keyword: str
    where: Subschema
    value: Any
    expected: str
    unquoted: str = ""
    found: str = ""
    member: str | None = None
    branches: Sequence[Sequence[Mismatch]] = ()

    @property
    def location(self) -> str:
        """The pointer of the keyword in the document; the schema `false` has no keyword."""
        return self.where.pointer if self.keyword == "false" else f"{self.where.pointer}/{self.keyword}"


def found(value: Any) -> str:
    """Describe a value in a few words: containers are counted, never dumped, and the rest is cut."""
    match value:
        case dict():
            return f"object with {counted(len(value), 'member')}"
        case list() | tuple():
            return f"array with {counted(len(value), 'item')}"
        case str() if len(value) > MAX_QUOTED:
            return f"{_json(value[:MAX_QUOTED])}… ({len(value):,} characters)"
        case int() | float() if not isinstance(value, bool):
            return cut(_json(value))
        case _:
            return _json(value)


def expected(keyword: str, argument: Any) -> str:
    """Return what a keyword with this argument expects."""
    match keyword:
        case "type":
            return argument if isinstance(argument, str) else " or ".join(argument)
        case "const":
            return found(argument)
        case "enum":
            more = f", … ({len(argument)} in all)" if len(argument) > MAX_LISTED else ""
            return f"one of {', '.join(map(found, argument[:MAX_LISTED]))}{more}"
        case _ if keyword in _COMPARED:
            return f"{_COMPARED[keyword]} {found(argument)}"
        case "pattern":
            return f"a match of `{cut(argument, MAX_EXPRESSION)}`"
        case "format":
            return f"format `{cut(argument)}`"
        case "contentEncoding" | "contentMediaType":
            return f"content in `{cut(argument)}`"
        case "uniqueItems":
            return "no item twice"
        case _ if keyword in _COUNTED:
            words, noun = _COUNTED[keyword]
            return f"{words} {counted(int(argument), noun)}"
        case _:
            return f"a value that `{keyword}` allows"


_COMPARED = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
_COUNTED = {
    "minLength": ("at least", "character"),
    "maxLength": ("at most", "character"),
    "minItems": ("at least", "item"),
    "maxItems": ("at most", "item"),
    "minProperties": ("at least", "member"),
    "maxProperties": ("at most", "member"),
}


def unquoted(keyword: str, argument: Any) -> str:
    """Return what is expected without the values that `expected` quotes, empty if it quotes none."""
    match keyword:
        case "const":
            return "the one value allowed"
        case "enum":
            return f"one of {counted(len(argument), 'value')}"
        case _:
            return ""


def closest(branches: Sequence[Sequence[Mismatch]], depth: int) -> int | None:
    """Return the number of the alternative that is clearly the closest to the value, or None.

    `depth` is the length of the path to the value.
    """
    ranked = sorted((_distance(mismatches, depth), index) for index, mismatches in enumerate(branches))
    if not ranked or ranked[0][0][0]:
        return None
    alone = len(ranked) == 1 or ranked[0][0] < ranked[1][0]
    return ranked[0][1] if alone else None


def _distance(mismatches: Sequence[Mismatch], depth: int) -> tuple[bool, bool, int]:
    """Return the distance of a value from an alternative.

    An alternative of another type is the farthest. Next is one whose constants differ at the value or its
    members, for such constants tell kinds apart. Then the one with fewer mismatches is closer.
    """
    other_type, other_kind, count = False, False, 0
    for mismatch in mismatches:
        near = mismatch.path.depth - depth
        if mismatch.branches:
            inner = min(_distance(branch, depth) for branch in mismatch.branches)
            other_type, other_kind = other_type or inner[0], other_kind or inner[1]
            count += inner[2]
        else:
            other_type |= mismatch.keyword == "type" and near == 0
            other_kind |= mismatch.keyword in {"const", "enum"} and near <= 1
            count += 1
    return other_type, other_kind, count


def alternatives(branches: Sequence[Sequence[Mismatch]], depth: int) -> str:
    """Return the expectation of several alternatives of which none is clearly the closest."""
    types: list[str] = []
    for mismatches in branches:
        if len(mismatches) != 1 or mismatches[0].keyword != "type" or mismatches[0].path.depth != depth:
            return f"a match of at least one of {len(branches)} alternatives"
        types += mismatches[0].expected.split(" or ")
    return " or ".join(dict.fromkeys(types))


def cut(text: str, longest: int = MAX_QUOTED) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def _json(value: Any) -> str:
    return _encode(value).decode()
