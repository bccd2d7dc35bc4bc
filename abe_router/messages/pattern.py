"""Routing keys and the patterns that match them, as in AMQP topic exchanges.

A key is dotted words: `orders.created`. In a pattern `*` stands for one word and `#` for zero or more
(AMQP 0-9-1, section 3.1.3.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

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
    return pattern == key or (is_wild(pattern) and _meet(key.split("."), pattern))


def overlaps(left: str, right: str) -> bool:
    """Return whether some key matches both patterns."""
    if not is_wild(left):
        return matches(right, left)
    if not is_wild(right):
        return matches(left, right)
    left_words, right_words = left.split("."), right.split(".")
    for a, b in zip(left_words, right_words, strict=False):  # most pairs part at the first words
        if a == "#" or b == "#":
            break
        if a != b and a != "*" and b != "*":
            return False
    return _meet(left_words, right)


class _Words(NamedTuple):
    """The words of a pattern as sets of positions: bit `i` is that of word `i`.

    `literal` has the positions of each word, those of `*` among them. A run of `#` counts once.
    """

    length: int
    literal: Mapping[str, int]
    stars: int
    hashes: int


@lru_cache(maxsize=4096)
def _words(pattern: str) -> _Words:
    given = pattern.split(".")
    words = [word for word, former in zip(given, ["", *given], strict=False) if not word == former == "#"]
    bits: dict[str, int] = {}
    for position, word in enumerate(words):
        bits[word] = bits.get(word, 0) | 1 << position
    stars, hashes = bits.pop("*", 0), bits.pop("#", 0)
    return _Words(len(words), {word: found | stars for word, found in bits.items()}, stars, hashes)


def _meet(left: Sequence[str], right: str) -> bool:
    """Return whether words with wildcards and a pattern have a sequence of words in common.

    After each word of `left`, bit `i` of `reached` says that the words so far can be those of the first `i`
    words of `right`. So each word takes a few operations on integers, whatever the wildcards.
    """
    length, literal, stars, hashes = _words(right)
    reached = 1 | (1 & hashes) << 1
    for word in left:
        if word == "#":
            reached = (2 << length) - (reached & -reached)
        else:
            fitting = (1 << length) - 1 & ~hashes if word == "*" else literal.get(word, stars)
            reached = (reached & fitting) << 1 | reached & hashes
            reached |= (reached & hashes) << 1
            if not reached:
                return False
    return bool(reached >> length & 1)


class KeyIndex:
    """Keys and patterns, arranged to find those that match a key."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: dict[str, None] = {}
        self.wild: list[str] = []
        for pattern in patterns:
            if is_wild(pattern):
                self.wild.append(pattern)
            else:
                self._exact[pattern] = None

    def matching(self, key: str) -> Iterator[str]:
        """Yield those that match a key, the key itself first."""
        if key in self._exact:
            yield key
        yield from (pattern for pattern in self.wild if matches(pattern, key))

    def has(self, key: str) -> bool:
        """Return whether any of them matches a key."""
        return next(self.matching(key), None) is not None
