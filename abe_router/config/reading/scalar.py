"""The value of a plain scalar: the core schema of YAML 1.2 (10.3.2), without what YAML 1.1 reads differently.

`on`, `012` and `12:30` have another meaning in YAML 1.1, and readers of both versions are in use. Such
scalars are refused, not guessed. Quotes make each of them a string.
"""

from __future__ import annotations

import re

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WORDS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OCTAL = re.compile(r"[-+]?0[0-9]+|0o[0-7]+")
_OTHER_BASE = re.compile(r"[-+]?0(x[0-9a-fA-F_]+|b[01_]+)")
# What a part has read it never gives back (`*+`), so that a long text is read once.
_UNDERSCORED = re.compile(r"[-+]?[0-9](?=[0-9]*+_)[0-9_]*+(\.[0-9_]*+)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

#: Longest number, in digits. Python refuses to read integers of more than 4,300.
_MAX_DIGITS = 400


class Ambiguous(ValueError):
    """Raised for a scalar that YAML readers disagree about. `hint` says what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


def resolve(text: str) -> str | int | float | bool | None:
    """Return what the plain scalar means, or raise Ambiguous."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if not text[0].isdigit() and text[0] not in "+-.":
        if meant := _WORDS.get(text.lower()):
            raise Ambiguous(f"`{text}` is a boolean in YAML 1.1", f'write `{meant}`, or quote it: `"{text}"`')
        return text
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and abs(number := float(text)) != float("inf"):
            return number
    _refuse(text)
    return text


def _refuse(text: str) -> None:
    quoted = f'quote it: `"{text}"`'
    if _OCTAL.fullmatch(text):
        decimal = text.lstrip("+-0o") or "0"
        raise Ambiguous(
            f"some YAML readers read `{text}` as an octal number", f"write `{decimal}`, or {quoted}"
        )
    if _SEXAGESIMAL.fullmatch(text):
        raise Ambiguous(f"`{text}` is a base-60 number in YAML 1.1", quoted)
    if _OTHER_BASE.fullmatch(text) or _UNDERSCORED.fullmatch(text):
        raise Ambiguous(
            f"some YAML readers read `{text}` as a number", f"write it in decimal digits, or {quoted}"
        )
    if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
        raise Ambiguous(f"the number `{text[:20]}` is too large", "quote it if it is text")
    if _NOT_FINITE.fullmatch(text):
        raise Ambiguous(f"`{text}` is a number that JSON cannot represent", "quote it if it is text")
