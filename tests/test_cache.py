"""The caches by routing key."""

from __future__ import annotations

from abe_router.messages.cache import remember


def test_full_cache_drops_its_oldest_entries_and_keeps_the_rest():
    cache = {}
    for n in range(101):
        remember(cache, f"key.{n}", n, limit=100)
    assert len(cache) == 91
    assert cache.get("key.9") is None
    assert [cache.get(f"key.{n}") for n in (10, 99, 100)] == [10, 99, 100]


def test_cache_never_grows_beyond_its_limit():
    cache = {}
    for n in range(1_000):
        remember(cache, f"key.{n}", n, limit=7)
        assert len(cache) <= 7
    assert cache["key.999"] == 999


def test_entry_that_is_replaced_drops_no_other():
    cache = {}
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        remember(cache, key, value, limit=2)
    assert cache == {"a": 3, "b": 2}
