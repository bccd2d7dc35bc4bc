"""The memory backend with bugs by which real providers have lost, doubled or blocked messages.

A bug is a handle or a backend that differs from a sound one in the bug alone.
"""

from __future__ import annotations

import asyncio
from itertools import count
from math import inf

import msgspec

from abe_router.backend import ACKED, Dead, Delayed, Released, Subscription
from abe_router.backends.memory import MemoryBackend


class Handle(Subscription):
    """Passes every call on to a handle of the memory backend; a subclass adds a bug."""

    def __init__(self, real, backend):
        self.real, self.backend = real, backend
        self.pattern, self.group = real.pattern, real.group

    async def fetch(self, limit, wait):
        return await self.real.fetch(limit, wait)

    def interrupt(self):
        self.real.interrupt()

    async def settle(self, settlements):
        return await self.real.settle(settlements)

    async def extend(self, deliveries):
        return await self.real.extend(deliveries)

    def renew(self, deliveries):
        self.real.renew(deliveries)

    async def close(self):
        await self.real.close()

    @property
    def queue(self):
        return self.backend._queues[self.pattern, self.group]


def latest(delivery):
    """Return the delivery with the receipt of the last delivery of its message."""
    entry, _ = delivery.receipt
    return msgspec.structs.replace(delivery, receipt=(entry, entry.claim))


class Sound(MemoryBackend):
    """No bug."""

    handle = Handle
    appends = 0

    async def append(self, messages):
        self.appends += 1
        await super().append(messages)

    async def subscribe(self, pattern, group, *, start=0.0, lease=30.0):
        return self.handle(await super().subscribe(pattern, group, start=start, lease=lease), self)


class AcksBeforeTheHandler(Handle):
    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, wait)
        await self.real.settle([(delivery, ACKED) for delivery in fetched])
        return fetched

    async def settle(self, settlements):
        return []


class NeverReclaims(Sound):
    async def subscribe(self, pattern, group, *, start=0.0, lease=30.0):
        return await super().subscribe(pattern, group, start=start, lease=inf)


class ReclaimsWhenThereIsTraffic(Handle):
    seen = 0

    async def fetch(self, limit, wait):
        if self.seen == self.backend.appends:
            await asyncio.sleep(wait)
            return []
        self.seen = self.backend.appends
        return await super().fetch(limit, 0)


class SettlesForAnyone(Handle):
    async def settle(self, settlements):
        for delivery, outcome in settlements:
            entry, _ = delivery.receipt
            if entry.seq in self.queue._leased:
                self.queue.settle(entry, outcome)
        return []


class SettlesForTheSameOwner(Handle):
    """Compares the holder, but not the delivery."""

    async def settle(self, settlements):
        return await self.real.settle([(latest(delivery), outcome) for delivery, outcome in settlements])


class ExtensionTakesBack(Handle):
    async def extend(self, deliveries):
        for delivery in deliveries:
            delivery.receipt[0].holder = self.real
        return await super().extend([latest(delivery) for delivery in deliveries])


class ExtensionRevives(Handle):
    async def extend(self, deliveries):
        for delivery in deliveries:
            entry, _ = delivery.receipt
            entry.logged.unsettled += 1
            self.queue._leased[entry.seq] = entry
        return []


class RenewsNothing(Handle):
    def renew(self, deliveries):
        pass


class RenewsInTheEventLoop(Handle):
    """Waits for the event loop, which is blocked."""

    def __init__(self, real, backend):
        super().__init__(real, backend)
        self.loop = asyncio.get_running_loop()

    def renew(self, deliveries):
        extending = asyncio.run_coroutine_threadsafe(self.real.extend(deliveries), self.loop)
        extending.result(timeout=0.2)


class RenewsAllItHolds(Handle):
    def renew(self, deliveries):
        for entry in self.queue._leased.values():
            entry.lease_until = self.backend._clock() + self.real._lease


class ForgetsWhatIsOnItsWay(Handle):
    """Renews what the event loop knows alone; what it fetched takes a few turns to arrive."""

    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, wait)
        for _ in range(5):
            await asyncio.sleep(0)
        return fetched


class RenewalTakesBack(Handle):
    def renew(self, deliveries):
        for delivery in deliveries:
            entry, claim = delivery.receipt
            entry.holder, entry.claim = self.real, claim
        super().renew(deliveries)


class RenewalRevives(Handle):
    def renew(self, deliveries):
        for delivery in deliveries:
            entry, _ = delivery.receipt
            entry.logged.unsettled += 1
            self.queue._leased[entry.seq] = entry


class GroupsBeginAtTheEnd(Sound):
    async def subscribe(self, pattern, group, *, start=0.0, lease=30.0):
        return await super().subscribe(pattern, group, start=inf, lease=lease)


class TrimsByLength(Sound):
    async def append(self, messages):
        await super().append(messages)
        for group in self._queues.values():
            while len(group._ready) > 10_000:
                group._ready.popleft()


class PublishesAgainWhenTheReplyIsLost(Sound):
    async def append(self, messages):
        await super().append(messages)
        if self.appends % 20 == 0:
            await super().append(messages)


class IgnoresTheLimit(Handle):
    async def fetch(self, limit, wait):
        return await super().fetch(1_000, wait)


class FetchesAhead(Handle):
    def __init__(self, real, backend):
        super().__init__(real, backend)
        self.ahead = []

    async def fetch(self, limit, wait):
        self.ahead += await super().fetch(1_000, 0 if self.ahead else wait)
        given, self.ahead = self.ahead[:limit], self.ahead[limit:]
        return given


class WritesTheDeadLetterAndThenAcks(Handle):
    async def settle(self, settlements):
        refused = []
        for delivery, outcome in settlements:
            if isinstance(outcome, Dead):
                entry, claim = delivery.receipt
                if entry.claim != claim:
                    refused.append(delivery)
                    continue
                id = str(next(self.queue._dead_letter_ids))
                self.queue._dead[id] = (msgspec.structs.replace(outcome.dead_letter, id=id), entry)
                await asyncio.sleep(0)
                outcome = ACKED
            refused += await super().settle([(delivery, outcome)])
        return refused


class AcksAndThenWritesTheDeadLetter(Handle):
    async def settle(self, settlements):
        refused = []
        for delivery, outcome in settlements:
            first = ACKED if isinstance(outcome, Dead) else outcome
            lost = await super().settle([(delivery, first)])
            refused += lost
            if isinstance(outcome, Dead) and not lost:
                await asyncio.sleep(0)
                id = str(next(self.queue._dead_letter_ids))
                dead_letter = msgspec.structs.replace(outcome.dead_letter, id=id)
                self.queue._dead[id] = (dead_letter, delivery.receipt[0])
        return refused


class LosesWhatACancelledFetchBrought(Handle):
    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, wait)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            for delivery in fetched:
                delivery.receipt[0].lease_until = inf
            raise
        return fetched


class CountsAttemptsInTheWorker(Handle):
    def __init__(self, real, backend):
        super().__init__(real, backend)
        self.failures = {}

    async def fetch(self, limit, wait):
        return [
            msgspec.structs.replace(
                delivery,
                message=msgspec.structs.replace(
                    delivery.message, attempt=1 + self.failures.get(delivery.message.id, 0)
                ),
            )
            for delivery in await super().fetch(limit, wait)
        ]

    async def settle(self, settlements):
        for delivery, outcome in settlements:
            if isinstance(outcome, Delayed):
                id = delivery.message.id
                self.failures[id] = self.failures.get(id, 0) + 1
        return await super().settle(settlements)


class PublishesRetriesForEveryone(Handle):
    async def settle(self, settlements):
        refused = await super().settle(settlements)
        for delivery, outcome in settlements:
            if isinstance(outcome, Delayed) and delivery not in refused:
                for group in self.backend._queues.values():
                    if group is not self.queue:
                        group.add(delivery.receipt[0].logged)
        return refused


class KeepsRetriesInTheWorker(Handle):
    def __init__(self, real, backend):
        super().__init__(real, backend)
        self.waiting = []

    async def settle(self, settlements):
        self.waiting += [delivery for delivery, outcome in settlements if isinstance(outcome, Delayed)]
        rest = [(d, o) for d, o in settlements if not isinstance(o, Delayed)]
        return await super().settle(rest)


class RemovesItsPendingWhenItCloses(Handle):
    async def close(self):
        leased = self.queue._leased
        for entry in [entry for entry in leased.values() if entry.holder is self.real]:
            del leased[entry.seq]
        await super().close()


class CountsWhatIsReleased(Handle):
    async def settle(self, settlements):
        refused = await super().settle(settlements)
        for delivery, outcome in settlements:
            if isinstance(outcome, Released) and delivery not in refused:
                delivery.receipt[0].deliveries += 1
        return refused


class ReplaysForEveryone(Sound):
    async def replay(self, pattern, group, ids):
        dead_letters = [each for each in await self.dead_letters(pattern, group) if each.id in ids]
        await self.purge(pattern, group, ids)
        await self.append([dead_letter.message for dead_letter in dead_letters])
        return len(dead_letters)


class ReplaysInTwoSteps(Sound):
    async def replay(self, pattern, group, ids):
        dead_letters = [each for each in await self.dead_letters(pattern, group) if each.id in ids]
        await asyncio.sleep(0)
        entries = self._queues[pattern, group]
        for dead_letter in dead_letters:
            entries.add(
                entries._dead[dead_letter.id][1].logged if dead_letter.id in entries._dead else self._last
            )
            self._last = entries._ready[-1].logged
        await self.purge(pattern, group, ids)
        return len(dead_letters)


class ForgetsInterruptions(Handle):
    fetching = False

    async def fetch(self, limit, wait):
        self.fetching = True
        try:
            return await super().fetch(limit, wait)
        finally:
            self.fetching = False

    def interrupt(self):
        if self.fetching:
            super().interrupt()


class ReturnsToTheEnd(Handle):
    async def settle(self, settlements):
        refused = await super().settle(settlements)
        for seq in sorted(self.queue._returned):
            self.queue._ready.append(self.queue._returned.pop(seq))
        return refused


class ReadsNewOnesEverySecondTime(Handle):
    reads_new = True

    async def fetch(self, limit, wait):
        queue = self.queue
        returned, order = queue._returned, queue._returned_order
        self.reads_new = not (self.reads_new and returned)
        if self.reads_new and queue._ready:
            queue._returned, queue._returned_order = {}, []
        try:
            return await super().fetch(limit, wait)
        finally:
            queue._returned, queue._returned_order = returned, order


class UsesDeadLetterIdsAgain(Sound):
    async def purge(self, pattern, group, ids):
        self._queues[pattern, group]._dead_letter_ids = count(1)
        return await super().purge(pattern, group, ids)
