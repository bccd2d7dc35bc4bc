"""Caches by routing key: plain dicts, so that a hit costs one `get`, filled by `remember`."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

V = TypeVar("V")

#: Entries that a cache holds at most: the keys of a large file, and as many that only its patterns match.
LIMIT = 20_000


def remember(cache: dict[str, V], key: str, value: V, *, limit: int = LIMIT) -> None:
    """Add an entry to a cache; drop its oldest tenth when it is full.

    One entry a time would be slow: a dict skips the holes of all that were dropped before to find the oldest.
    """
    if len(cache) >= limit and key not in cache:
        for oldest in tuple(islice(cache, max(1, limit // 10))):
            cache.pop(oldest, None)
    cache[key] = value
