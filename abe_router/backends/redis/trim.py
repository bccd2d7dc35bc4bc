"""Removing what every group of a stream has settled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from abe_router.backend import retention
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, group_name
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.scripts import TRIM
from abe_router.messages.pattern import is_wild, matches

#: Entries removed from a stream at a time, in one or two milliseconds.
_PIECE = 10_000
#: Streams asked for at a time.
_CHUNK = 50


async def trim(line: Line, names: Names, registry: Registry, retain: Mapping[str, float]) -> int:
    """Trim each stream that has a subscription by one piece; return how many entries were removed.

    Groups that other programs made on a stream count as well; who reads it without a group does not.
    """
    retain = await registry.retain(retain)
    entered = await line.send("GET", names.entered) or b""
    readers = _Readers((pattern, group) for pattern, group, _ in await registry.subscriptions())
    # By far most patterns are keys, and looked up; matching each with each would be the cost of it all.
    wild = {pattern: seconds for pattern, seconds in retain.items() if is_wild(pattern)}
    keys = await registry.keys()
    removed = 0
    for first in range(0, len(keys), _CHUNK):
        answers = []
        for key in keys[first : first + _CHUNK]:
            if groups := readers.of(key):
                old = math.ceil(max(retain.get(key, 0.0), retention(wild, key)) * 1000)
                args = (entered, old, _PIECE, *groups)
                answers.append(line.run(TRIM, (names.stream(key), names.entered), args))
        for answer in answers:
            removed += await answer
    return removed


class _Readers:
    """The groups of the subscriptions, by key."""

    def __init__(self, subscriptions: Iterable[tuple[str, str]]) -> None:
        self._exact: dict[str, list[str]] = {}
        self._wild: list[tuple[str, str]] = []
        for pattern, group in subscriptions:
            if is_wild(pattern):
                self._wild.append((pattern, group_name(pattern, group)))
            else:
                self._exact.setdefault(pattern, []).append(group)

    def of(self, key: str) -> list[str]:
        """Return the groups that read the stream of a key."""
        wild = [group for pattern, group in self._wild if matches(pattern, key)]
        return self._exact.get(key, []) + wild
