"""The memory backend with bugs in its key-value store; see `bugs`."""

from __future__ import annotations

import asyncio
import json
from math import inf

import msgspec

from abe_router.backend import Entry
from abe_router.backends.memory.key_value import KeyValueStore, _Stored

from .bugs import Sound


class ComparesAndPutsInTwoSteps(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        entry = await self.get(bucket, name)
        await asyncio.sleep(0)
        if expected not in (None, entry.revision if entry else 0):
            return 0
        return await super().put(bucket, name, value, ttl=ttl)


class IgnoresTheRevision(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        return await super().put(bucket, name, value, ttl=ttl)


class ComparesNothingWithNoEntry(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        return await super().put(bucket, name, value, expected=expected or None, ttl=ttl)


class DeletesAnyRevision(Sound):
    async def delete(self, bucket, name, *, expected=None):
        return await super().delete(bucket, name)


class DeletesForGetAlone(Sound):
    def __init__(self):
        super().__init__()
        self.gone = set()

    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        self.gone.discard((bucket, name))
        return await super().put(bucket, name, value, expected=expected, ttl=ttl)

    async def get(self, bucket, name):
        return None if (bucket, name) in self.gone else await super().get(bucket, name)

    async def delete(self, bucket, name, *, expected=None):
        found = await self.get(bucket, name) is not None
        self.gone.add((bucket, name))
        return found


class FindsWhatIsNotThere(Sound):
    async def get(self, bucket, name):
        return await super().get(bucket, name) or Entry(b"", 0)


class GivesRevisionsAgain(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        entry = await self.get(bucket, name)
        self._key_value._revision = entry.revision if entry else 0
        return await super().put(bucket, name, value, expected=expected, ttl=ttl)


class NeverExpires(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        return await super().put(bucket, name, value, expected=expected)


class ExpiresByTheFirstPut(Sound):
    def __init__(self):
        super().__init__()
        self.ends = {}

    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        now = self._clock()
        end = self.ends.setdefault((bucket, name), inf if ttl is None else now + ttl)
        left = None if end == inf else max(0.0, end - now)
        return await super().put(bucket, name, value, expected=expected, ttl=left)


class MovesTheEndOfWhatItRefuses(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        revision = await super().put(bucket, name, value, expected=expected, ttl=ttl)
        entry = await self.get(bucket, name)
        if not revision and entry and ttl:
            self._key_value._buckets[bucket][name] = _Stored(entry, self._clock() + ttl)
        return revision


class TakesEmptyForGone(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        revision = await super().put(bucket, name, value, expected=expected, ttl=ttl)
        if not value:
            await self.delete(bucket, name)
        return revision


class KeepsValuesAsText(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        text = value.decode(errors="replace").encode()
        return await super().put(bucket, name, text, expected=expected, ttl=ttl)


class Renamed(Sound):
    """No bug: an entry whose place a bug may change."""

    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        return await super().put(*self.place(bucket, name), value, expected=expected, ttl=ttl)

    async def get(self, bucket, name):
        return await super().get(*self.place(bucket, name))

    async def delete(self, bucket, name, *, expected=None):
        return await super().delete(*self.place(bucket, name), expected=expected)


class JoinsBucketsAndNames(Renamed):
    def place(self, bucket, name):
        return "all", f"{bucket}:{name}"

    async def entries(self, bucket):
        everything = await super().entries("all")
        found = {name.removeprefix(f"{bucket}:"): each for name, each in everything.items()}
        return {name: each for name, each in found.items() if f"{bucket}:{name}" in everything}


class FoldsNames(Renamed):
    def place(self, bucket, name):
        return bucket, name.lower().strip().partition("\0")[0]


class SharesItsStore(Sound):
    shared = KeyValueStore(lambda: 0.0)

    def __init__(self):
        super().__init__()
        self._key_value = self.shared


class ForgetsEntriesWhenItCloses(Sound):
    async def close(self):
        self._key_value._buckets.clear()
        await super().close()


class PutsInTwoSteps(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        entry = await self.get(bucket, name)
        if entry is None or expected not in (None, entry.revision):
            return await super().put(bucket, name, value, expected=expected, ttl=ttl)
        half = msgspec.structs.replace(entry, value=value)
        self._key_value._buckets[bucket][name] = _Stored(half, inf)
        await asyncio.sleep(0)
        return await super().put(bucket, name, value, ttl=ttl)


class KeepsEachBucketAsOneValue(Sound):
    async def put(self, bucket, name, value, *, expected=None, ttl=None):
        entries = self._key_value._buckets.get(bucket, {})
        # The test fills the bucket first. The difference shows with any encoder of JSON.
        for _ in range(10 if name in entries else 0):
            json.loads(json.dumps({each: stored.entry.value.hex() for each, stored in entries.items()}))
        return await super().put(bucket, name, value, expected=expected, ttl=ttl)


class KeepsWhatHasExpired(Sound):
    def __init__(self):
        super().__init__()
        self._key_value._remove_expired = lambda now: None
