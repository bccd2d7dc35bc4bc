"""Keys and patterns: matching equals a naive oracle."""

from __future__ import annotations

from itertools import product
from random import Random

from abe_router.errors import KeyInvalid
from abe_router.messages.pattern import check_key, is_key, is_pattern, is_wild, matches, overlaps
from fuzz.corpus import Corpus
from fuzz.target.target import Input, Target, demand

_WORDS = ("a", "b", "orders", "created", "*", "#", "*", "#", "#")
_ODD = ("", "é", " ", "a b", "**", "#a", "/", "\n", "a\n", "\x00", "A_:@=+~-", "x" * 256)


class PatternTarget(Target):
    """Compares `matches` and `overlaps` with definitions by recursion and by enumeration."""

    name = "pattern"
    about = "matching of keys and patterns equals a naive oracle, in bounded time"
    short = 10000

    def make(self, random: Random, corpus: Corpus) -> Input:  # noqa: ARG002
        """Return two patterns and a key, sometimes long or malformed."""
        return [_text(random, _WORDS), _text(random, _WORDS), _text(random, _WORDS[:4])]

    def check(self, given: Input) -> None:
        """Compare with the oracles; without valid patterns, check that the key is refused."""
        left, right, key = given
        try:
            check_key(key)
        except KeyInvalid:
            demand(not is_key(key), f"{key!r} is a key, and it is refused")
            return
        demand(is_key(key) and is_pattern(key), f"{key!r} is accepted, and it is no key")
        if not (is_pattern(left) and is_pattern(right)):
            return
        if left.count("#") + right.count("#") > 6:  # the oracle is exponential
            matches(left, key), overlaps(left, right)
            return
        words = left.split("."), right.split("."), key.split(".")
        demand(matches(left, key) == _matches(words[0], words[2]), f"matches({left!r}, {key!r})")
        demand(overlaps(left, right) == overlaps(right, left), f"overlaps({left!r}, {right!r}) is one-sided")
        if matches(left, key) and matches(right, key):
            demand(overlaps(left, right), f"{key!r} matches {left!r} and {right!r}, which do not overlap")
        if not is_wild(right):
            demand(overlaps(left, right) == matches(left, right), f"overlaps({left!r}, {right!r})")
        elif len(words[0]) + len(words[1]) <= 6:
            found = any(_matches(words[0], each) and _matches(words[1], each) for each in _keys(words))
            demand(overlaps(left, right) == found, f"overlaps({left!r}, {right!r})")


def _text(random: Random, words: tuple[str, ...]) -> str:
    count = random.choice((1, 2, 3, 3, 4, 6, 30, 120))
    chosen = [random.choice(words) for _ in range(count)]
    if random.random() < 0.1:
        chosen[random.randrange(count)] = random.choice(_ODD)
    return ".".join(chosen)


def _matches(pattern: list[str], key: list[str]) -> bool:
    """Return whether a key matches, by the definition of AMQP 0-9-1, section 3.1.3.3."""
    if not pattern:
        return not key
    first, *rest = pattern
    if first == "#":
        return any(_matches(rest, key[start:]) for start in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and _matches(rest, key[1:])


def _keys(words: tuple[list[str], ...]) -> list[list[str]]:
    """Return keys of the words of both patterns, long enough to show every overlap."""
    known = sorted({word for each in words[:2] for word in each if word not in ("*", "#")}) or ["z"]
    longest = len(words[0]) + len(words[1])
    return [list(key) for size in range(1, min(5, longest) + 1) for key in product(known, repeat=size)]
