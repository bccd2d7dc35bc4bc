"""The memory backend with bugs in the ownership of subscriptions; see `bugs`."""

from __future__ import annotations

import asyncio
from math import inf

from abe_router.backend import Delayed
from abe_router.backends.memory import ExclusiveMemorySubscription

from .bugs import Sound


class Exclusive(ExclusiveMemorySubscription):
    """No bug: an exclusive handle; a subclass adds one."""


def exclusively(bug):
    """Return a backend whose exclusive handles have the bug."""

    async def subscribe_exclusive(self, pattern, group, *, start=0.0, lease=30.0):
        queue = self._queue(pattern, group, start)
        return bug(pattern, group, queue, lease, self._handles, self._emit)

    return type(bug.__name__, (Sound,), {"subscribe_exclusive": subscribe_exclusive})


@exclusively
class DeliversWithoutOwnership(Exclusive):
    async def fetch(self, limit, wait):
        await asyncio.sleep(0)
        return self._queue.take_in_order(limit, self, self._lease) or await super().fetch(limit, wait)


@exclusively
class TakesOverOnlyWhatItFetches(Exclusive):
    async def fetch(self, limit, wait):
        holder, until = self._queue.owner
        if holder is not self:
            await asyncio.sleep(max(0.0, until - self._queue._clock()))
            self._queue.owner = self, self._queue._clock() + self._lease
        return await super().fetch(limit, wait)


@exclusively
class TakesOverLeasesOfOthers(Exclusive):
    async def fetch(self, limit, wait):
        if self._queue.owner[0] is None:
            for entry in self._queue._leased.values():
                entry.holder = None
        return await super().fetch(limit, wait)


@exclusively
class LeavesWhatIsDelayed(Exclusive):
    async def fetch(self, limit, wait):
        put_aside, self._queue._delayed = self._queue._delayed, []
        try:
            return await super().fetch(limit, wait)
        finally:
            self._queue._delayed += put_aside


@exclusively
class BeginsWithWhatIsNew(Exclusive):
    async def fetch(self, limit, wait):
        if self._queue._ready:
            put_aside, self._queue._returned = self._queue._returned, {}
            fetched = await super().fetch(limit, 0.0)
            for seq, entry in put_aside.items():
                self._queue._returned.setdefault(seq, entry)
            self._queue._returned_order = sorted(self._queue._returned)
            return fetched
        return await super().fetch(limit, wait)


@exclusively
class NeverReleasesOwnership(Exclusive):
    async def close(self):
        self._handles.discard(self)
        self.interrupt()


@exclusively
class OwnershipNeverEnds(Exclusive):
    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, wait)
        if self._queue.owner[0] is self:
            self._queue.owner = self, inf
        return fetched


@exclusively
class LosesOwnershipWhileItWaits(Exclusive):
    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, 0.0)
        while not fetched and wait > 0:
            await asyncio.sleep(min(wait, 2 * self._lease))
            wait -= 2 * self._lease
            fetched = await super().fetch(limit, 0.0)
        return fetched


@exclusively
class PutsBackWhatIsPostponed(Exclusive):
    async def postpone(self, failed):
        await self.settle([(delivery, Delayed(seconds)) for delivery, seconds in failed])
        return [delivery for delivery, _ in failed]


@exclusively
class FetchesAgainWhatItHolds(Exclusive):
    async def fetch(self, limit, wait):
        self._queue._recover()
        return await super().fetch(limit, wait)


@exclusively
class RenewsWithoutTheOwnership(Exclusive):
    def renew(self, deliveries):
        owner = self._queue.owner
        super().renew(deliveries)
        self._queue.owner = owner
        for delivery in deliveries:  # nothing is leased to others then, so that the ownership alone protects
            delivery.receipt[0].lease_until = 0.0
