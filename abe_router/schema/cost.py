"""What a schema costs to compile and to check, estimated before it is compiled.

The compiler is fast with what people write. A small file can make it take hours or all memory in two ways,
so both are counted first:

- Subschemas that apply to the same value multiply: six levels of six references are 46,656 ways. With
  `unevaluatedProperties` or `unevaluatedItems` the compiler follows each way.
- A counted repetition multiplies the size of a compiled pattern, and a Unicode class is large by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from abe_router.errors import SchemaFault
from abe_router.messages.pointer import join
from abe_router.schema.dialect import subschemas
from abe_router.schema.index import SchemaIndex, Subschema

#: Most ways from a schema through the subschemas that apply to the same value.
MAX_WAYS = 100_000
#: Most ways from all schemas with `unevaluated` keywords, each number squared, as the compiler takes time.
MAX_UNEVALUATED = 20_000_000
#: A schema of at most this many bytes has no room for the levels that multiply to so many ways.
SURELY_CHEAP = 400
#: Most memory for the compiled patterns of one document, in bytes.
MAX_PATTERNS = 128 * 1024 * 1024

_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

_REPETITION = re.compile(r"\{([0-9]{1,6})(?:,([0-9]{0,6}))?\}")
_UNICODE = re.compile(r"\\[pP]")
#: Memory of a compiled pattern: of each character and of each Unicode class, in bytes. The engine refuses a
#: pattern that takes more than `_LARGEST`.
_OF_CHARACTER, _OF_CLASS, _LARGEST = 100, 55_000, 10 * 1024 * 1024


def large_patterns(document: Any, path: Path | None) -> list[SchemaFault]:
    """Return the fault of a document whose patterns together take too much memory, at the one too many."""
    patterns, memory = set[str](), 0
    for steps, schema in subschemas(document):
        for pattern in _patterns(schema):
            if pattern not in patterns:
                patterns.add(pattern)
                memory += _size(pattern)
        if memory > MAX_PATTERNS:
            message = "the regular expressions take too much memory"
            hint = "shorten counted repetitions, such as `{1,1000}`, and classes such as `\\p{L}`"
            return [SchemaFault("schema", message, path, join(steps), hint)]
    return []


def combined_too_often(documents: Mapping[str, Any], uri: str, path: Path | None) -> list[SchemaFault]:
    """Return the fault of a schema in which too many subschemas apply to one value.

    `documents` are its documents by URI, `uri` and `path` those of its own.
    """
    index = SchemaIndex(documents, uri)
    ways, squares = _Ways(index), 0
    if ways.below(index.root) > MAX_WAYS:
        message = "too many subschemas are combined: each level multiplies the number of the next"
        return [SchemaFault("schema", message, path, hint="refer to a schema once, not several times")]
    for place, document in documents.items():
        for steps, schema in subschemas(document):
            if any(keyword in schema for keyword in _UNEVALUATED):
                squares += ways.below(index.below(index.of(place), *steps)) ** 2
                if squares > MAX_UNEVALUATED:
                    message = "too many subschemas are combined below an `unevaluated` keyword"
                    pointer = join(steps) if place == uri else ""
                    return [
                        SchemaFault("schema", message, path, pointer, "combine fewer, or name the members")
                    ]
    return []


def _patterns(schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(pattern := schema.get("pattern"), str):
        yield pattern
    if isinstance(members := schema.get("patternProperties"), dict):
        yield from members


def _size(pattern: str) -> int:
    """Return the memory that a compiled pattern takes at most, in bytes."""
    size = len(pattern) * _OF_CHARACTER + len(_UNICODE.findall(pattern)) * _OF_CLASS
    for least, most in _REPETITION.findall(pattern):
        size *= max(1, int(least), int(most or 0))
        if size > _LARGEST:
            break
    return min(size, max(_LARGEST, len(pattern) * 4 * _OF_CHARACTER))


class _Ways:
    """Counts the ways from a subschema through those that apply to the same value. A cycle counts once."""

    def __init__(self, index: SchemaIndex) -> None:
        self._index = index
        self._known: dict[int, int] = {}

    def below(self, start: Subschema) -> int:
        """Return the number of ways, without recursion: references may be thousands deep."""
        waiting: list[tuple[Subschema, list[Subschema] | None]] = [(start, None)]
        while waiting:
            sub, inner = waiting.pop()
            if inner is not None:
                found = 1 + sum(self._known.get(id(each.schema), 0) for each in inner)
                self._known[id(sub.schema)] = min(found, MAX_UNEVALUATED)
            elif id(sub.schema) not in self._known:
                self._known[id(sub.schema)] = 0
                inner = list(self._beside(sub))
                waiting.append((sub, inner))
                waiting += [(each, None) for each in inner]
        return self._known[id(start.schema)]

    def _beside(self, sub: Subschema) -> Iterator[Subschema]:
        schema = sub.schema
        if not isinstance(schema, dict):
            return
        for keyword in _LISTS:
            if isinstance(listed := schema.get(keyword), list):
                yield from (self._index.below(sub, keyword, number) for number in range(len(listed)))
        yield from (self._index.below(sub, keyword) for keyword in _SINGLE if keyword in schema)
        for keyword in _MAPS:
            if isinstance(mapped := schema.get(keyword), dict):
                yield from (self._index.below(sub, keyword, name) for name in mapped)
        for keyword in _REFERENCES:
            if isinstance(text := schema.get(keyword), str):
                target = self._index.resolve(sub.base, text)
                if target is not None:
                    yield target
