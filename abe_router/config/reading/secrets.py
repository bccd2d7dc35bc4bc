"""The values of variables, and texts in which they are replaced.

A variable of the environment may hold a password, and a routes file may use it anywhere. A message quotes
what the file has, `${NAME}`. Where it quotes a part of the value, or the value in another form, this module
replaces the part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Shortest value, and shortest part of one, that is replaced. Shorter ones are parts of ordinary words.
MIN_LENGTH = 4
#: Characters by which a longer part is recognised, because a message may cut it off.
_PREFIX = 8
#: Most parts that are looked for.
MAX_PARTS = 2000

_PART = re.compile(rf"[^\W_]{{{MIN_LENGTH},}}")
#: What stands for a part of a value.
MASK = "***"


class Secrets:
    """Collects values of variables. What the file itself spells out is no secret."""

    def __init__(self) -> None:
        self._file = ""
        self._names: dict[str, str] = {}
        self._parts: dict[str, None] = {}
        self._pattern: re.Pattern[str] | None = None

    def read_file(self, text: str) -> None:
        """Take the text of the file. A value that stands there is shown."""
        self._file = text.casefold()

    def add(self, values: Mapping[str, str]) -> None:
        """Add values of variables, by name."""
        for name, value in values.items():
            if len(value) < MIN_LENGTH or value in self._names or value.casefold() in self._file:
                continue
            self._names[value], self._pattern = name, None
            for match in _PART.finditer(value):
                if len(self._parts) < MAX_PARTS and match[0].casefold() not in self._file:
                    self._parts[match[0]] = None

    def hidden_in(self, text: str) -> str:
        """Return a text without the values and their parts, in either case of letters."""
        if not self._names:
            return text
        for value in sorted(self._names, key=len, reverse=True):
            text = text.replace(value, f"${{{self._names[value]}}}")
        if self._pattern is None:
            forms = sorted({_form(part) for part in self._parts}, key=len, reverse=True)
            self._pattern = re.compile("|".join(forms) or r"(?!)", re.IGNORECASE)
        return self._pattern.sub(MASK, text)


def _form(part: str) -> str:
    """Return the expression for a part, or for the beginning of a long one."""
    return re.escape(part) if len(part) <= _PREFIX else rf"{re.escape(part[:_PREFIX])}[^\W_]*"
