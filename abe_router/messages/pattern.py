"""Routing keys and the patterns that match them, as in AMQP topic exchanges.

A key is dotted words: `orders.created`. In a pattern `*` stands for one word and `#` for zero or more
(AMQP 0-9-1, section 3.1.3.3).
"""

from __future__ import annotations

import re
from functools import lru_cache

from abe_router.errors import KeyInvalid

#: Longest routing key, in characters. AMQP's own limit, and far below any backend's.
MAX_KEY_LENGTH = 255

_WORD = r"[A-Za-z0-9_:@=+~-]+"
_KEY = re.compile(rf"{_WORD}(\.{_WORD})*")
_PATTERN = re.compile(rf"({_WORD}|\*|\#)(\.({_WORD}|\*|\#))*")
_GROUP = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def is_key(text: str) -> bool:
    """Return whether `text` is a routing key."""
    return len(text) <= MAX_KEY_LENGTH and _KEY.fullmatch(text) is not None


@lru_cache(maxsize=65_536)
def check_key(text: str) -> str:
    """Return `text`, or raise KeyInvalid when it is not a routing key."""
    if not isinstance(text, str) or not is_key(text):
        what = f"`{str(text)[:80]}`" if text else "an empty text" if text == "" else repr(text)
        raise KeyInvalid(f"{what} is not a routing key: words of letters, digits and _:@=+~- joined by dots")
    return text


def is_pattern(text: str) -> bool:
    """Return whether `text` is a pattern with at least one wildcard, or a key."""
    return len(text) <= MAX_KEY_LENGTH and _PATTERN.fullmatch(text) is not None


def is_wild(pattern: str) -> bool:
    """Return whether the pattern has a wildcard; without one it is a key."""
    return "*" in pattern or "#" in pattern


def is_group(text: str) -> bool:
    """Return whether `text` can name a group: no slash, so that `key/group` reads one way only."""
    return _GROUP.fullmatch(text) is not None


@lru_cache(maxsize=65_536)
def matches(pattern: str, key: str) -> bool:
    """Return whether `key` matches `pattern`."""
    return pattern == key or (is_wild(pattern) and _meet(tuple(pattern.split(".")), tuple(key.split("."))))


def overlaps(left: str, right: str) -> bool:
    """Return whether some key matches both patterns."""
    if not is_wild(left):
        return matches(right, left)
    if not is_wild(right):
        return matches(left, right)
    left_words, right_words = tuple(left.split(".")), tuple(right.split("."))
    for a, b in zip(left_words, right_words, strict=False):  # most pairs part at the first words
        if a == "#" or b == "#":
            break
        if a != b and a != "*" and b != "*":
            return False
    return _meet(left_words, right_words)


def _meet(left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Return whether two word sequences with wildcards have a sequence of words in common.

    A table over the two suffixes, filled from the ends: quadratic, whereas the obvious recursion is
    exponential in the number of `#`.
    """
    n = len(right)
    below = [False] * (n + 1)
    below[n] = True
    for j in range(n - 1, -1, -1):
        below[j] = right[j] == "#" and below[j + 1]
    for i in range(len(left) - 1, -1, -1):
        row = [False] * (n + 1)
        row[n] = left[i] == "#" and below[n]
        for j in range(n - 1, -1, -1):
            a, b = left[i], right[j]
            if a == "#" or b == "#":
                row[j] = below[j] or row[j + 1]
            else:
                row[j] = (a == b or a == "*" or b == "*") and below[j + 1]
        below = row
    return below[0]
