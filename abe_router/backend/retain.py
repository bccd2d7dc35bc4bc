"""How long what is settled is kept."""

from __future__ import annotations

from collections.abc import Mapping

from abe_router.pattern import matches

#: How much longer than it asks for what a caller of `trim` wants kept counts for others, in seconds.
GRACE = 60.0


def retention(retain: Mapping[str, float], key: str) -> float:
    """Return the longest time, in seconds, of the patterns that match the key; 0 when none does."""
    return max((seconds for pattern, seconds in retain.items() if matches(pattern, key)), default=0.0)
