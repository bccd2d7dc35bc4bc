"""The key-value store of the memory backend."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from abe_router.backend import Entry
from abe_router.backends.memory.log import Clock

#: Expired entries that one `put` removes at most.
REMOVED_PER_PUT = 4


class _Stored(NamedTuple):
    entry: Entry
    until: float


class KeyValueStore:
    """Buckets of entries, and one counter for the revisions of all of them.

    An entry that expired counts as absent. A later `put` removes it; each removes only a few, so that all of
    them cost about the same.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._revision = 0
        self._buckets: dict[str, dict[str, _Stored]] = {}
        self._ends: list[tuple[float, int, str, str]] = []  # heap: end, revision, bucket, name
        self._ends_limit = 64

    def put(self, bucket: str, name: str, value: bytes, expected: int | None, ttl: float | None) -> int:
        """Keep a value; return its revision, 0 when the present revision is not the expected one."""
        now = self._clock()
        self._remove_expired(now)
        if expected is not None and expected != self._current(bucket, name):
            return 0
        self._revision += 1
        until = inf if ttl is None else now + ttl
        self._buckets.setdefault(bucket, {})[name] = _Stored(Entry(value, self._revision), until)
        if ttl is not None:
            heapq.heappush(self._ends, (until, self._revision, bucket, name))
            if len(self._ends) > self._ends_limit:
                self._forget_replaced()
        return self._revision

    def get(self, bucket: str, name: str) -> Entry | None:
        """Return an entry, None when it is absent or expired."""
        stored = self._buckets.get(bucket, {}).get(name)
        return stored.entry if stored is not None and stored.until > self._clock() else None

    def entries(self, bucket: str) -> Mapping[str, Entry]:
        """Return the entries of a bucket by name, sorted, without the expired ones."""
        now = self._clock()
        stored = sorted(self._buckets.get(bucket, {}).items())
        return {name: each.entry for name, each in stored if each.until > now}

    def delete(self, bucket: str, name: str, expected: int | None) -> bool:
        """Delete an entry; return False when it is absent or its revision is not the expected one."""
        revision = self._current(bucket, name)
        if not revision or expected not in (None, revision):
            return False
        self._remove(bucket, name)
        return True

    def _current(self, bucket: str, name: str) -> int:
        """Return the revision of an entry, 0 when it is absent or expired."""
        entry = self.get(bucket, name)
        return entry.revision if entry else 0

    def _remove(self, bucket: str, name: str) -> None:
        del self._buckets[bucket][name]
        if not self._buckets[bucket]:
            del self._buckets[bucket]

    def _remove_expired(self, now: float) -> None:
        for _ in range(REMOVED_PER_PUT):
            if not self._ends or self._ends[0][0] > now:
                return
            _, revision, bucket, name = heapq.heappop(self._ends)
            if self._has(revision, bucket, name):
                self._remove(bucket, name)

    def _forget_replaced(self) -> None:
        """Drop the ends of entries that were replaced or deleted; there are more of them than of others."""
        self._ends = [end for end in self._ends if self._has(*end[1:])]
        heapq.heapify(self._ends)
        self._ends_limit = 2 * len(self._ends) + 64

    def _has(self, revision: int, bucket: str, name: str) -> bool:
        stored = self._buckets.get(bucket, {}).get(name)
        return stored is not None and stored.entry.revision == revision
