"""A JSON pointer (RFC 6901): the place of a value in a payload."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")


def is_pointer(text: str) -> bool:
    """Say whether `text` is a pointer to a part of a payload."""
    return _POINTER.fullmatch(text) is not None


def find(payload: Any, pointer: str) -> Any:
    """Return the value at the pointer; raise LookupError when there is none."""
    for step in _steps(pointer):
        if isinstance(payload, dict):
            payload = payload[step]
        elif isinstance(payload, list) and _INDEX.fullmatch(step):
            payload = payload[int(step)]
        else:
            raise LookupError(pointer)
    return payload


@lru_cache(maxsize=1024)
def _steps(pointer: str) -> tuple[str, ...]:
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])
