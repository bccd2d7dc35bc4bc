"""JSON pointers (RFC 6901): the path to a value in a JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

#: A pointer below the root, as a regular expression that Python and ECMA-262 read alike.
POINTER_PATTERN = r"^(/([^~/]|~[01])*)+$"
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
#: Longest pointer that a file may have, in characters.
MAX_LENGTH = 4096
#: A step to an item of an array.
INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


def is_pointer(text: str) -> bool:
    """Return whether `text` is a pointer to a part of a document. The empty pointer is the whole.

    A text of more than 4,096 characters is none: payloads are not that deep.
    """
    return len(text) <= MAX_LENGTH and _POINTER.fullmatch(text) is not None


def escape(step: str | int) -> str:
    """Return one step of a path as a reference token."""
    text = str(step)
    return text.replace("~", "~0").replace("/", "~1") if "~" in text or "/" in text else text


def join(steps: Iterable[str | int]) -> str:
    """Return the pointer of a path; an empty path gives the empty pointer."""
    return "".join(f"/{escape(step)}" for step in steps)


@lru_cache(maxsize=1024)
def parse(pointer: str) -> tuple[str, ...]:
    """Return the reference tokens of a pointer, unescaped. An index stays text."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def find(payload: Any, pointer: str) -> Any:
    """Return the value at the pointer; raise LookupError when there is none."""
    for step in parse(pointer):
        if isinstance(payload, dict):
            payload = payload[step]
        elif isinstance(payload, list) and INDEX.fullmatch(step):
            payload = payload[int(step)]
        else:
            raise LookupError(pointer)
    return payload
