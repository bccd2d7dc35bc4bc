"""Routing keys and the patterns that match them, as in AMQP topic exchanges.

A key is dotted words: `orders.created`. In a pattern `*` stands for one word and `#` for zero or more
(AMQP 0-9-1, section 3.1.3.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from abe_router.errors import KeyInvalid

#: Longest routing key, in characters. AMQP's own limit, and far below any backend's.
MAX_KEY_LENGTH = 255
#: Most states of `covers`. Without a limit, a pattern with many `#` could take minutes.
MAX_STATES = 10_000

V = TypeVar("V")

_WORD = r"[A-Za-z0-9_:@=+~-]+"
_KEY = re.compile(rf"{_WORD}(\.{_WORD})*")
#: The form of a key or pattern, and of a group, as regular expressions that Python and ECMA-262 read alike.
PATTERN_FORM, GROUP_FORM = rf"^({_WORD}|\*|#)(\.({_WORD}|\*|#))*$", "^[A-Za-z0-9_.:-]{1,128}$"
_PATTERN, _GROUP = re.compile(PATTERN_FORM), re.compile(GROUP_FORM)


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


def is_catch_all(pattern: str) -> bool:
    """Return whether the pattern begins with `#`, or with `*` and then `#`, so that it names no key."""
    return next((word for word in pattern.split(".") if word != "*"), "") == "#"


def naming(patterns: Iterable[str]) -> PatternIndex[str]:
    """Return an index of the patterns that make a key known: all that are not catch-alls."""
    return PatternIndex((each, each) for each in patterns if not is_catch_all(each))


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


def covers(pattern: str, other: str) -> bool:
    """Return whether `pattern` matches every key that `other`, a key or another pattern, matches.

    The answer is False as well if it would take more than `MAX_STATES` steps to find out.

    A wildcard of `other` stands for words that `pattern` does not name. The words so far may be those of the
    first `i` words of `pattern` if bit `i` of a state is set. A `#` of `other` leads to one state for each
    number of words that it may stand for.
    """
    if pattern in ("#", other):
        return True
    words = _words(pattern)
    states, steps = {words.begin}, 0
    for word in other.split(".") if other.strip("#.") else ("*", "#"):  # a key has at least one word
        if word == "#":
            found: set[int] = set()
            for reached in states:
                while reached not in found:
                    found.add(reached)
                    reached = words.after(reached, words.stars)
        else:
            fitting = words.stars if word == "*" else words.literal.get(word, words.stars)
            found = {words.after(reached, fitting) for reached in states}
        states, steps = found, steps + len(found)
        if 0 in states or steps > MAX_STATES:
            return False
    return all(reached >> words.length & 1 for reached in states)


class _Words(NamedTuple):
    """The words of a pattern as sets of positions: bit `i` is that of word `i`.

    `literal` has the positions of each word, those of `*` among them. A run of `#` counts once.
    """

    length: int
    literal: Mapping[str, int]
    stars: int
    hashes: int

    @property
    def begin(self) -> int:
        """The positions that are reached before the first word: bit `i` says that `i` words may be past."""
        return 1 | (1 & self.hashes) << 1

    def after(self, reached: int, fitting: int) -> int:
        """Return the positions that are reached after one more word, which fits the words `fitting`."""
        reached = (reached & fitting) << 1 | reached & self.hashes
        return reached | (reached & self.hashes) << 1


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


class PatternIndex(Generic[V]):
    """Finds the values of all patterns that match a key; what a key costs does not depend on their number.

    Keys lie in a dict. Patterns with wildcards lie in a trie of words, which is followed as a
    nondeterministic automaton: a key visits only the branches that its own words and the wildcards take.
    """

    def __init__(self, values: Iterable[tuple[str, V]] = ()) -> None:
        self._by_key: dict[str, list[tuple[int, V]]] = {}
        self._root = _Node[V](loops=False)
        self._count = 0
        for pattern, value in values:
            self.add(pattern, value)

    def add(self, pattern: str, value: V) -> None:
        """Add a value after those that are there."""
        if is_wild(pattern):
            node = self._root
            for word in pattern.split("."):
                child = node.children.get(word)
                if child is None:
                    child = node.children[word] = _Node(loops=word == "#")
                node = child
            values = node.values
        else:
            values = self._by_key.setdefault(pattern, [])
        values.append((self._count, value))
        self._count += 1

    def match(self, key: str) -> list[V]:
        """Return the values of the patterns that match, in the order in which they were added."""
        found = self._by_key.get(key, [])
        if self._root.children:
            states = _with_empty_hashes([self._root])
            for word in key.split("."):
                states = _with_empty_hashes(_after(states, word))
            found = sorted((*found, *(value for node in states for value in node.values)), key=_position)
        return [value for _, value in found]


class _Node(Generic[V]):
    """A place in a pattern. `loops` means that the last word was `#`, which any further word fits."""

    __slots__ = ("children", "loops", "values")

    def __init__(self, *, loops: bool) -> None:
        self.loops = loops
        self.children: dict[str, _Node[V]] = {}
        #: The values of the patterns that end here, each with its position among all.
        self.values: list[tuple[int, V]] = []


def _after(states: Iterable[_Node[V]], word: str) -> list[_Node[V]]:
    """Return the places that `word` leads to."""
    found = []
    for node in states:
        if node.loops:
            found.append(node)
        for name in (word, "*"):
            child = node.children.get(name)
            if child is not None:
                found.append(child)
    return found


def _with_empty_hashes(states: list[_Node[V]]) -> Iterable[_Node[V]]:
    """Return the places, and those behind a `#` that stands for no word; each once."""
    for node in states:  # grows while it is walked
        child = node.children.get("#")
        if child is not None:
            states.append(child)
    return dict.fromkeys(states)


_position = itemgetter(0)
