"""Keys and patterns, compared with the definition of AMQP."""

from __future__ import annotations

import re
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abe_router.errors import KeyInvalid
from abe_router.messages.pattern import (
    PatternIndex,
    check_key,
    covers,
    is_group,
    is_key,
    is_pattern,
    matches,
    overlaps,
)

words = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)
patterns = st.lists(st.sampled_from("ab*#"), min_size=1, max_size=4).map(".".join)
#: Patterns that have a common key among KEYS if they have one at all.
short_patterns = st.lists(st.sampled_from("ab*#"), min_size=1, max_size=3).map(".".join)


def by_definition(pattern: str, key: str) -> bool:
    """Match as AMQP defines it, with a regular expression over words that each end in a dot."""
    parts = {"*": r"[^.]+\.", "#": r"([^.]+\.)*"}
    text = "".join(parts.get(word, re.escape(word) + r"\.") for word in pattern.split("."))
    return re.fullmatch(text, key + ".") is not None


@given(patterns, words.map(".".join))
def test_matching_follows_amqp(pattern, key):
    assert matches(pattern, key) == by_definition(pattern, key)


KEYS = [".".join(p) for n in range(1, 6) for p in product("abc", repeat=n)]


@given(short_patterns, short_patterns)
def test_two_patterns_overlap_exactly_when_some_key_matches_both(left, right):
    some = any(by_definition(left, key) and by_definition(right, key) for key in KEYS)
    # `#` alone also matches no words at all, which is not a key: the only overlap without a common key.
    if overlaps(left, right) != some:
        assert set(left) | set(right) <= {"#", "."}
    assert overlaps(left, right) == overlaps(right, left)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("orders", True),
        ("orders.created", True),
        ("slack:events", True),
        ("", False),
        ("orders.", False),
        ("orders..created", False),
        ("orders.*", False),
        ("orders created", False),
        ("{orders}", False),
        ("orders/created", False),
        ("a" * 256, False),
    ],
)
def test_key_is_words_separated_by_dots(text, good):
    assert is_key(text) is good


def test_a_pattern_is_a_key_with_wildcards_for_whole_words():
    assert is_pattern("orders.*.#")
    assert not is_pattern("orders.cre*")


def test_group_with_a_slash_is_refused():
    assert is_group("billing-2")
    assert not is_group("a/b")


def test_a_bad_key_is_refused_with_a_reason():
    with pytest.raises(KeyInvalid, match="not a routing key"):
        check_key("orders created")


class TestPatternIndex:
    @given(st.lists(patterns | words.map(".".join), max_size=12), words.map(".".join))
    def test_it_finds_what_matches_in_the_order_of_adding(self, added, key):
        index = PatternIndex(enumerate_values(added))
        assert index.match(key) == [(n, p) for n, p in enumerate(added) if by_definition(p, key)]

    def test_a_key_visits_only_the_branches_of_its_own_words(self):
        index = PatternIndex((f"{shape}.{n}.x", n) for n in range(2_000) for shape in ("#", "*", "a"))
        calls = 0

        def count(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        sys.setprofile(count)
        try:
            found = index.match("a.7.x")
        finally:
            sys.setprofile(None)
        assert found == [7, 7, 7]
        assert calls < 50


def enumerate_values(added):
    return [(pattern, (n, pattern)) for n, pattern in enumerate(added)]


def test_a_pattern_covers_another_when_it_matches_every_key_of_it():
    def all_of(words, longest):
        return [".".join(found) for n in range(1, longest + 1) for found in product(words, repeat=n)]

    keys, found = all_of("abc", 5), all_of("a*#", 3)
    for pattern, other in product(found, found):
        of_other = [key for key in keys if matches(other, key)]
        assert covers(pattern, other) == all(matches(pattern, key) for key in of_other), (pattern, other)
    assert covers("orders.#", "orders.*")
    assert covers("orders.*", "orders.created")
    assert not covers("orders.*", "orders.#")
    assert not covers("orders.created", "orders.*")


def test_a_pattern_that_takes_too_long_to_compare_covers_nothing():
    pattern = ".".join(["#", *["a", "*", "*"] * 40])
    assert not covers(pattern, ".".join(["#", "a"] * 60))
