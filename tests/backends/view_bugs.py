"""The memory backend with bugs in `status` and `peek`; see `bugs`."""

from __future__ import annotations

import asyncio
from itertools import chain
from math import inf

import msgspec

from abe_router.backend import RELEASED, Peeked
from abe_router.messages.pattern import matches

from .bugs import Sound


class Oldest(Sound):
    """No bug: a status whose `oldest_at` a bug may choose among entries."""

    async def status(self):
        found = []
        for status in await super().status():
            queue = self._queues[status.pattern, status.group]
            oldest = min((queue._accepted_at(entry) for entry in self.among(queue)), default=None)
            found.append(msgspec.structs.replace(status, oldest_at=oldest))
        return found


class LooksAtTheLastDelayed(Sound):
    async def status(self):
        found = []
        for status in await super().status():
            delayed = self._queues[status.pattern, status.group]._delayed
            last = max((due for due, _, _ in delayed), default=None)
            found.append(msgspec.structs.replace(status, next_due_at=last))
        return found


class CountsTheAgeOfWhatIsInFlight(Oldest):
    def among(self, queue):
        return chain(queue._ready, queue._handed_out())


class ForgetsTheAgeOfWhatCameBack(Oldest):
    def among(self, queue):
        return queue._ready


class KnowsTheAgeOfItsFirstKeyAlone(Oldest):
    def among(self, queue):
        entries = [*queue._ready, *queue._returned.values()]
        first = min((entry.message.key for entry in entries), default="")
        return [entry for entry in entries if entry.message.key == first]


class LooksAtAllForTheOldest(Oldest):
    def among(self, queue):
        return [*queue._ready, *queue._returned.values()]


class TellsNoSubscriptionsApart(Oldest):
    def among(self, queue):
        return [e for each in self._queues.values() for e in (*each._ready, *each._returned.values())]


class ListsSubscriptionsInAnyOrder(Sound):
    async def status(self):
        return [queue.status(*name) for name, queue in self._queues.items()]


class PeeksByFetching(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        if (pattern, group) not in self._queues:
            return await super().peek(pattern, group, limit=limit, after=after)
        handle = await self.subscribe(pattern, group)
        fetched = await handle.fetch(limit, 0.0)
        await handle.settle([(delivery, RELEASED) for delivery in fetched])
        await handle.close()
        return [
            Peeked(str(d.receipt[0].seq), d.message, "ready", d.deliveries - 1)
            for d in fetched
            if d.receipt[0].seq > int(after or 0)
        ]


class PeekCountsAsADelivery(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        if queue := self._queues.get((pattern, group)):
            for entry in queue._ready:
                entry.deliveries += 1
        return await super().peek(pattern, group, limit=limit, after=after)


class PeekRenewsLeases(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        if queue := self._queues.get((pattern, group)):
            for entry in queue._leased.values():
                entry.lease_until = inf
        return await super().peek(pattern, group, limit=limit, after=after)


class PeekMakesTheSubscription(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        if group is not None:
            await (await self.subscribe(pattern, group)).close()
        return await super().peek(pattern, group, limit=limit, after=after)


class PeekDecodesBodies(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        return [
            msgspec.structs.replace(
                each,
                message=msgspec.structs.replace(
                    each.message, body=each.message.body.decode(errors="replace").encode()
                ),
            )
            for each in await super().peek(pattern, group, limit=limit, after=after)
        ]


class PeekHidesWhatIsSettled(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        kept = self._log._kept
        seen = await super().peek(pattern, group, limit=limit, after=after)
        return seen if group else [each for each in seen if kept[int(each.cursor)].unsettled > 1]


class PeekShowsWhatIsSettled(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        known = group is None or (pattern, group) in self._queues
        return await super().peek(pattern, None, limit=limit, after=after) if known else []


class PeekForgetsWhatIsDelayed(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        seen = await super().peek(pattern, group, limit=limit, after=after)
        return [each for each in seen if each.state != "delayed"]


class PeekEndsAtTheBeginning(Sound):
    async def peek_end(self, pattern, group):
        return ""


class PeekEndsOneTooFar(Sound):
    async def peek_end(self, pattern, group):
        return str(int(await super().peek_end(pattern, group)) + 1)


class PeekBeginsAgainWithAWrongCursor(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        return await super().peek(pattern, group, limit=limit, after=after if after.isdigit() else "")


class PeekIgnoresItsLimit(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        return await super().peek(pattern, group, limit=1_000, after=after)


class PeekBeginsWithWhatWasSeen(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        before = str(max(0, int(after or 0) - 1))
        return await super().peek(pattern, group, limit=limit, after=before)


class PeekGoesKeyByKey(Sound):
    """Pages through the keys by name; what comes later under an earlier key is behind its cursor."""

    async def peek(self, pattern, group, *, limit=100, after=""):
        everything = await super().peek(pattern, group, limit=1_000_000)
        placed = sorted((f"{each.message.key} {int(each.cursor):09}", each) for each in everything)
        later = [(place, each) for place, each in placed if place > after]
        return [msgspec.structs.replace(each, cursor=place) for place, each in later[:limit]]


class PeekStumblesOverATrim(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        if group is not None:
            return await super().peek(pattern, group, limit=limit, after=after)
        seen = []
        for seq in [seq for seq in self._log._kept if seq > int(after or 0)][:limit]:
            await asyncio.sleep(0)
            seen.append(Peeked(str(seq), self._log._kept[seq].message, "retained"))
        return [each for each in seen if matches(pattern, each.message.key)]


class PeekReadsEverything(Sound):
    async def peek(self, pattern, group, *, limit=100, after=""):
        everything = await super().peek(pattern, group, limit=1_000_000)
        return [each for each in everything if int(each.cursor) > int(after or 0)][:limit]
