"""The key-value store: buckets of named values with revisions.

Revisions come from one counter for all buckets of a prefix, so none is given twice, not even after a delete
or an expiry. Each call deletes a few expired entries, so its cost does not depend on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from abe_router.backend import Entry
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.scripts import DELETE, ENTRIES, GET, PUT


class KeyValueStore:
    """The buckets under one prefix."""

    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection, self._names = connection, names

    async def put(
        self, bucket: str, name: str, value: bytes, *, expected: int | None = None, ttl: float | None = None
    ) -> int:
        """Keep a value and return its revision, or 0 if the entry has not the expected one."""
        keys = (*self._keys(bucket), self._names.revision)
        millis = "" if ttl is None or ttl == math.inf else max(0, math.ceil(ttl * 1000))
        args = (_pack(name), value, "" if expected is None else expected, millis)
        return int(await self._connection.run(PUT, keys, args))

    async def get(self, bucket: str, name: str) -> Entry | None:
        """Return an entry, None if there is none."""
        entries, _ = self._keys(bucket)
        found = await self._connection.run(GET, (entries,), (_pack(name),))
        return Entry(found[1], found[0]) if found else None

    async def entries(self, bucket: str) -> Mapping[str, Entry]:
        """Return all entries of a bucket, by name."""
        entries, _ = self._keys(bucket)
        found = await self._connection.run(ENTRIES, (entries,))
        return {
            _unpack(name): Entry(value, revision)
            for name, revision, value in zip(found[::3], found[1::3], found[2::3], strict=True)
        }

    async def delete(self, bucket: str, name: str, *, expected: int | None = None) -> bool:
        """Delete an entry; return False if there is none, or if it has not the expected revision."""
        args = (_pack(name), "" if expected is None else expected)
        return bool(await self._connection.run(DELETE, self._keys(bucket), args))

    def _keys(self, bucket: str) -> tuple[bytes, bytes]:
        return _pack(self._names.bucket(bucket)), _pack(self._names.expiry(bucket))


def _pack(text: str) -> bytes:
    """Return a name as bytes; lone surrogates are allowed, because a name may be any text."""
    return text.encode("utf-8", "surrogatepass")


def _unpack(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # another program wrote it
        return name.decode("utf-8", "backslashreplace")
