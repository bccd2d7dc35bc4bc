"""The memory backend with bugs in de-duplication; see `bugs`."""

from __future__ import annotations

import asyncio

import msgspec

from abe_router.backend import Acked
from abe_router.backends.memory.log import DedupeIndex

from .bugs import Handle, Sound


class RemembersBeforeItKeeps(Sound):
    async def append_once(self, windowed):
        kept = [message for message, window in windowed if not window or self._dedupe.add(message, window)]
        await asyncio.sleep(0)
        await self.append(kept)
        return [message for message, _ in windowed if message not in kept]


class KeepsBeforeItRemembers(Sound):
    async def append_once(self, windowed):
        passed_over = []
        for message, window in windowed:
            if self.knows(message):
                passed_over.append(message)
                continue
            await self.append([message])
            await asyncio.sleep(0)
            if window:
                self._dedupe.add(message, window)
        return passed_over

    def knows(self, message):
        return self._dedupe._until.get((message.key, message.id), 0.0) > self._clock()


class ComparesAndThenKeeps(KeepsBeforeItRemembers):
    async def append_once(self, windowed):
        passed_over = [message for message, _ in windowed if self.knows(message)]
        await asyncio.sleep(0)
        for message, window in windowed:
            if message not in passed_over:
                await super().append_once([(message, 0.0)])
                self._dedupe.add(message, window)
        return passed_over


class ForgetsTheOldestIds(Sound):
    async def append_once(self, windowed):
        passed_over = await super().append_once(windowed)
        ids = self._dedupe
        ids._ends.sort()
        for _, name in ids._ends[: max(0, len(ids) - 10_000)]:
            del ids._until[name]
        ids._ends = [end for end in ids._ends if end[1] in ids._until]
        return passed_over


class ForgetsAllIdsTogether(Sound):
    """Forgets the whole set of ids when the window of one of them ends."""

    async def append_once(self, windowed):
        passed_over = await super().append_once(windowed)
        kept = {message.id for message, _ in windowed} - {message.id for message in passed_over}
        known = self.__dict__.setdefault("known", set())
        if kept & known:  # the window of one has ended
            self._dedupe = DedupeIndex(self._clock)
        known |= kept
        return passed_over


class LengthensTheWindow(Sound):
    async def append_once(self, windowed):
        passed_over = await super().append_once(windowed)
        for message, window in windowed:
            name = (message.key, message.id)
            self._dedupe._until.pop(name, None)
            self._dedupe._ends = [end for end in self._dedupe._ends if end[1] != name]
            self._dedupe.add(message, window)
        return passed_over


class ComparesIdsOfAllKeys(Sound):
    async def append_once(self, windowed):
        alike = [(msgspec.structs.replace(message, key=""), window) for message, window in windowed]
        fresh = [self._dedupe.add(*each) for each in alike]
        await self.append([message for (message, _), new in zip(windowed, fresh, strict=True) if new])
        return [message for (message, _), new in zip(windowed, fresh, strict=True) if not new]


class RemembersWithoutAWindow(Sound):
    async def append_once(self, windowed):
        return await super().append_once([(message, window or 60.0) for message, window in windowed])


class FoldsIds(Sound):
    async def append_once(self, windowed):
        folded = [
            (msgspec.structs.replace(message, id=message.id.partition("\0")[0].lower()), window)
            for message, window in windowed
        ]
        gone = {id(message) for message in await super().append_once(folded)}
        return [m for (m, _), (other, _) in zip(windowed, folded, strict=True) if id(other) in gone]


class ComparesWithKeptMessagesAlone(Sound):
    async def append_once(self, windowed):
        there = {(kept.message.key, kept.message.id) for kept in self._log._kept.values()}
        fresh = [(m, window) for m, window in windowed if (m.key, m.id) not in there]
        await self.append([message for message, _ in fresh])
        return [each[0] for each in windowed if each not in fresh]


class RemembersWhatIsNotEmitted(Handle):
    async def settle(self, settlements):
        for delivery, outcome in settlements:
            if isinstance(outcome, Acked) and outcome.window:
                entry, claim = delivery.receipt
                if entry.claim != claim:
                    for output in outcome.outputs:
                        self.backend._dedupe.add(output, outcome.window)
        return await super().settle(settlements)


class EmitsDuplicates(Handle):
    async def settle(self, settlements):
        return await super().settle(
            [(d, Acked(o.outputs) if isinstance(o, Acked) else o) for d, o in settlements]
        )
