"""How long settled messages are kept."""

from __future__ import annotations

from collections.abc import Mapping

from abe_router.messages.pattern import matches

#: How long the retention of one caller of `trim` also applies to other callers, in seconds.
RETAIN_TTL = 86_400.0


def retention(retain: Mapping[str, float], key: str) -> float:
    """Return the longest time, in seconds, of the patterns that match the key, or 0."""
    return max((seconds for pattern, seconds in retain.items() if matches(pattern, key)), default=0.0)
