"""The handle on a group that has it to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from abe_router.backend import Delivery, ExclusiveSubscription
from abe_router.backends.memory.subscription import MemorySubscription


class ExclusiveMemorySubscription(MemorySubscription, ExclusiveSubscription):
    """Takes the place of the group when it fetches and the place is free."""

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        await asyncio.sleep(0)  # as for other handles
        while self in self._handles:
            entries = self._living()
            again = entries.occupy(self, self._lease)
            taken = entries.take_in_order(limit, self, self._lease) if not again else []
            left = deadline - loop.time()
            if taken or self._interrupted or left <= 0:
                self._interrupted = False
                return taken
            self._waiter = loop.create_future()
            await entries.wait(self._waiter, min(left, again or self._lease / 3))
        return []

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        return [
            self._entries.postpone(entry, seconds, self._lease) if (entry := self._held(delivery)) else None
            for delivery, seconds in failed
        ]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if self._entries.place[0] is self:
            self._entries.occupy(self, self._lease)
        return await super().extend(deliveries)

    async def close(self) -> None:
        self._entries.vacate(self)
        await super().close()
