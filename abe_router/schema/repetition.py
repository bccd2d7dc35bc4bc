"""A name that an object of a JSON text gives twice: a reader sees the last of its values alone."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}:]')


class Repetition(NamedTuple):
    """A name, and where it stands for the second time, in characters from the beginning."""

    name: str
    offset: int


def find_repetition(text: str) -> Repetition | None:
    """Return the first repetition in a text that is valid JSON, None when there is none."""
    names: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "{":
                names.append(set())
            case "}":
                names.pop()
            case ":" if last is not None:
                name = json.loads(last[0])
                if name in names[-1]:
                    return Repetition(name, last.start())
                names[-1].add(name)
        last = token
    return None
