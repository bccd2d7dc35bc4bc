"""Fingerprints: which dead letters have the same fault.

A fingerprint is a function of the reason of a dead letter alone. It is computed when it is read and stored
nowhere, so a better rule needs no migration; the prefix `v1-` then changes. It covers:

- `invalid`: the keyword, the pointer without indices and keys, and the member that is missing or not allowed;
- `malformed`: the error;
- `failed`: the type of the exception and the innermost frame of the user's code, without a line;
- `rejected`, and what failed without such a frame: the shape of the message in addition;
- `timeout` and `max_deliveries`: nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePath
from typing import NamedTuple

from abe_router.backend import Reason

#: Version of the rules, and the number of bytes of a hash.
PREFIX, _SIZE = "v1-", 5
#: Longest first line of a message that is looked at, in characters.
LONGEST = 1_000

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HEX = r"(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,}"
#: A segment of a pointer that is an index or a key and no name of a member.
_KEY = re.compile(rf"[0-9]+|0x[0-9a-f]+|{_UUID}|{_HEX}", re.IGNORECASE)
#: The rules of `shape`, in their order. Each match becomes the name of its rule in angle brackets.
_ID_RULES = {
    "uuid": rf"(?<![0-9a-z_]){_UUID}(?![0-9a-z_])",
    "hex": rf"(?<![0-9a-z_])(?:[0-9]x[0-9a-f]{{4,}}|{_HEX})(?![0-9a-z_])",
    "id": r"(?<![0-9a-z_])(?=[0-9_]*[a-z])(?=[a-z_]*[0-9][a-z_]*[0-9])[0-9a-z_]{12,}(?![0-9a-z_])",
}
#: What follows a number may begin one of these: the number becomes a name, and the next pass would find it.
_RULES = {
    "url": r"(?<![a-z_])[a-z][a-z0-9+.-]{1,15}://[^\s\"'`<>]+",
    "email": r"(?<![a-z_.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,190}",
    "time": r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[t ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?(?:[.,][0-9]+)?(?:z|[+-][0-9]{2}:?[0-9]{2})?)?",
    "ip": r"(?<![0-9a-z_.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?::[0-9]+)?(?![0-9a-z_.])",
    "text": r"(?<![\w>])(?:'[^']*'|\"[^\"]*\"|`[^`]*`)(?![\w<])",
    "n": r"[0-9]+(?:[.,:][0-9]+)*",
}


def _compiled(rules: Mapping[str, str]) -> re.Pattern[str]:
    named = "|".join(f"(?P<{name}>{rule})" for name, rule in rules.items())
    return re.compile(named, re.IGNORECASE | re.ASCII)


_ID, _RULE = _compiled(_ID_RULES), _compiled(_RULES)
#: Each match of a rule has one of these.
_MARK = re.compile("[0-9@'\"`]|://").search
#: What keeps its digits, unless it is part of a URL or an address. Meanwhile they are characters that no text
#: contains: noncharacters of Unicode.
_STATUS = re.compile(
    r"(?<![\w./@])(?:status(?:[ _]?code)?|http)[ :=]{1,2}[0-9]{3}\b", re.IGNORECASE | re.ASCII
)
_KEEP = {ord("0") + digit: 0xFDD0 + digit for digit in range(10)}
_KEPT = {kept: digit for digit, kept in _KEEP.items()}
#: What is quoted and says what is wrong: a name.
_NAME = re.compile(r".[a-z_][a-z_.-]*.", re.IGNORECASE | re.ASCII)
#: Each digit as 0, in the bytes of UTF-8: faster than the same for characters.
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
#: The shortest id that the rules for ids find.
_SHORTEST_ID = len("0x0000")

_MEMBER = re.compile(
    r": (?:dependentR|r)equired: expected property `([^`]+)`|: expected no property `([^`]+)`"
)
#: The keywords whose violations name a member.
_ABOUT_MEMBERS = frozenset(
    {
        "required",
        "dependentRequired",
        "dependencies",
        "additionalProperties",
        "unevaluatedProperties",
        "propertyNames",
    }
)
_BLOCK = "Traceback (most recent call last):\n"
_FRAME = re.compile(r'^ +File "([^"\n]+)", line [0-9]+, in (.+)$', re.MULTILINE)
_INSTALLED = re.compile(r"[/\\](?:site-packages|dist-packages|python3\.[0-9]+)[/\\]|^<frozen ")
_COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")


class Origin(NamedTuple):
    """Where a failure came from: the qualified type of the exception, and the frame as `module:function`."""

    type: str
    frame: str


def fingerprint(reason: Reason) -> str:
    """Return the fingerprint of the reason of a dead letter."""
    return _hash(_parts(reason))


def place(reason: Reason) -> str:
    """Return where the fault is, as the fingerprint sees it: `type at /items/*`, `KeyError in shop:charge`.

    It is empty for kinds that have no place.
    """
    if reason.kind == "invalid":
        _, keyword, pointer, member = _parts(reason)
        return f"{keyword}{f' `{member}`' if member else ''} at {pointer or '(root)'}"
    if reason.kind in ("failed", "rejected"):
        origin = _origin(reason)
        return f"{origin.type} in {origin.frame}" if origin.frame else origin.type
    return ""


def shape(message: str) -> str:
    """Return the first line of a message without what differs from one failure to the next.

    Numbers, addresses, ids, times and quoted text become the name of what they are: `<n>`, `<uuid>`. A status
    such as `status 503` stays, and so does a quoted name such as `'order_id'`.
    """
    line = message.strip().partition("\n")[0][:LONGEST]
    if "status" in (lower := line.lower()) or "http" in lower:
        line = _STATUS.sub(lambda match: match[0].translate(_KEEP), line)
    # No other digit matters, so lines that differ in digits share one entry of the cache.
    return _shape(line.encode("utf-8", "surrogatepass").translate(_ZEROS).decode("utf-8", "surrogatepass"))


@lru_cache(maxsize=10_000)
def pointer_pattern(pointer: str) -> str:
    """Return a pointer with a star in place of each index and each key: `/items/17/id` is `/items/*/id`."""
    segments = pointer.split("/")
    for at, segment in enumerate(segments):
        if segment and not segment.isalpha() and _KEY.fullmatch(segment):
            segments[at] = "*"
    return "/".join(segments)


def is_own(path: str) -> bool:
    """Return whether a file of a traceback is the user's: neither part of Python nor installed."""
    return not _INSTALLED.search(path)


def _parts(reason: Reason) -> tuple[str, ...]:
    kind = reason.kind
    if kind == "invalid":
        return kind, reason.keyword, pointer_pattern(reason.pointer), _member(reason)
    if kind == "malformed":
        return kind, reason.error
    if kind in ("timeout", "max_deliveries"):
        return (kind,)
    error, frame = (reason.type, reason.frame) if reason.type else _origin(reason)
    if kind == "failed" and frame:
        return kind, error, frame
    return kind, error, frame, shape(reason.message)


def _member(reason: Reason) -> str:
    """Return the name of the member that is missing or not allowed, empty for other faults."""
    if reason.keyword not in _ABOUT_MEMBERS:
        return ""
    first = reason.message.partition("; at ")[0]
    found = _MEMBER.search(first)
    return pointer_pattern(next(filter(None, found.groups()), "")) if found else ""


def _origin(reason: Reason) -> Origin:
    """Return the origin that the reason has, or the one that its traceback shows."""
    if reason.type:
        return Origin(reason.type, reason.frame)
    return _read_origin(reason.error, reason.traceback)


@lru_cache(maxsize=1_000)
def _read_origin(error: str, traceback: str) -> Origin:
    """Return the origin that the text of a traceback shows.

    A text has no module, only a path, so the module is the name of the file.
    """
    block = traceback.rpartition(_BLOCK)[2]
    lines = re.findall(rf"^((?:\w+\.)*{re.escape(error)})(?::|$)", block, re.MULTILINE)
    frame = ""
    for path, function in _FRAME.findall(block):
        if is_own(path) and function not in _COMPREHENSIONS:
            file = PurePath(path)
            frame = f"{file.parent.name if file.stem == '__init__' else file.stem}:{function}"
    return Origin(lines[-1] if lines else error, frame)


@lru_cache(maxsize=10_000)
def _shape(line: str) -> str:
    # Lines that differ in ids share one entry of the second cache. No id has a space.
    words = line.split(" ")
    for at, word in enumerate(words):
        if "0" in word and len(word) >= _SHORTEST_ID:
            words[at] = _ID.sub(_replaced, word)
    return _shape_without_ids(" ".join(words))


@lru_cache(maxsize=10_000)
def _shape_without_ids(line: str) -> str:
    if _MARK(line):
        line = _RULE.sub(_replaced, line)
    return " ".join((line if line.isascii() else line.translate(_KEPT)).split())


def _replaced(match: re.Match[str]) -> str:
    rule, text = match.lastgroup, match[0]
    if rule != "text":
        return f"<{rule}>"
    return text if _NAME.fullmatch(text) else f"{text[0]}<text>{text[0]}"


@lru_cache(maxsize=10_000)
def _hash(parts: tuple[str, ...]) -> str:
    text = "\0".join(parts).encode(errors="backslashreplace")
    return PREFIX + blake2b(text, digest_size=_SIZE).hexdigest()
