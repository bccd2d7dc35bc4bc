"""How long settled messages are kept."""

from __future__ import annotations

from collections.abc import Mapping

from abe_router.messages.pattern import matches

#: How long the retention that one caller of `trim` asks for also holds for the others, in seconds.
RETAIN_TTL = 86_400.0


def retention(retain: Mapping[str, float], key: str) -> float:
    """Return the longest time, in seconds, of the patterns that match the key; 0 when none does."""
    return max((seconds for pattern, seconds in retain.items() if matches(pattern, key)), default=0.0)
