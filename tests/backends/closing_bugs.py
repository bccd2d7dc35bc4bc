"""The memory backend with bugs in how its handles close; see `bugs`."""

from __future__ import annotations

import asyncio
from math import inf

from abe_router.errors import SubscriptionClosed

from .bugs import Handle, Sound


class ReturnsNothingOnceClosed(Handle):
    async def fetch(self, limit, wait):
        try:
            return await super().fetch(limit, wait)
        except SubscriptionClosed:
            return []


class RaisesOnlyBeforeItWaits(Handle):
    async def fetch(self, limit, wait):
        if self.real not in self.backend._handles:
            raise SubscriptionClosed("closed")
        try:
            return await super().fetch(limit, wait)
        except SubscriptionClosed:
            return []


class ClosesWithoutWaking(Handle):
    async def close(self):
        self.backend._handles.discard(self.real)


class WaitsOnThoughTheBackendIsClosed(Sound):
    async def close(self):
        self._handles.clear()


class OpensItsHandlesAgain(Sound):
    closed = ()

    async def close(self):
        self.closed = tuple(self._handles)
        await super().close()

    async def open(self):
        self._handles.update(self.closed)


class KeepsWhatAClosedFetchBrought(Handle):
    async def fetch(self, limit, wait):
        fetched = await super().fetch(limit, wait)
        await asyncio.sleep(0)
        if self.real not in self.backend._handles:
            for delivery in fetched:
                delivery.receipt[0].lease_until = inf
            raise SubscriptionClosed("closed")
        return fetched
