"""The handle on one subscription that has each of its streams to itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from abe_router.backend import Delayed, Delivery, ExclusiveSubscription, Outcome
from abe_router.backends.redis.possession import Possession
from abe_router.backends.redis.scripts import KEEP, LEAVE, REAP
from abe_router.backends.redis.subscription import NEVER, PATIENCE, RedisSubscription
from abe_router.errors import BackendError


class ExclusiveRedisSubscription(RedisSubscription, ExclusiveSubscription):
    """Takes the place on each stream when it fetches and the place is free."""

    def __init__(self, pattern: str, group: str, **parts: Any) -> None:
        super().__init__(pattern, group, **parts)
        self._intake = self._possession = Possession(
            self._line,
            self._sweep,
            self._waker,
            self._agenda,
            self._window,
            self._names,
            self._intake.lost,
        )

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        deadline = self._loop.time() + wait
        if wait <= 0:  # who does not wait is not told of what comes, so has to ask
            self._agenda.read.update(dict.fromkeys(self._sources.values()))
        await self._forget_round()
        while not self._closed and not self._interrupted:
            if self._agenda or not self._line.up:
                if found := await self._one_round(limit):
                    return found
            elif self._loop.time() >= deadline:
                return []
            else:
                await self._sleep(deadline)
        self._interrupted = False
        return []

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        refused = await super().settle(settlements)
        put_off = (self._sources[d.message.key] for d, outcome in settlements if isinstance(outcome, Delayed))
        self._agenda.mark(self._agenda.read, put_off)
        return refused

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        await self._line.open()
        refused = set(await self._settlement.postpone(failed))
        return [None if each in refused else _next_attempt(each, seconds) for each, seconds in failed]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await self._line.open()
        for key in {delivery.message.key for delivery in deliveries} & self._sources.keys():
            source = self._sources[key]
            self._line.run(KEEP, (self._names.place(key, source.group),), (source.consumer, source.lease))
        return await super().extend(deliveries)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._round:
            await asyncio.wait([self._round], timeout=PATIENCE)
        self._possession.let_go()
        self._let_go()
        self._on_closed(self)
        with suppress(BackendError):
            left = []
            for key, source in self._sources.items():
                place = self._names.place(key, source.group), self._names.left(key, source.group)
                left.append(self._line.run(LEAVE, place, (source.consumer,)))
                self._line.run(REAP, (source.stream,), (source.group, NEVER, source.consumer))
            await asyncio.gather(*left)

    def _stirred(self) -> None:
        self._wake()

    async def _one_round(self, limit: int) -> Sequence[Delivery]:
        """Return what a round brings; nothing when it is interrupted before that is here."""
        # It goes on when the fetch is cancelled, for what the server handed out would be lost on the way.
        self._round = self._loop.create_task(self._intake.take(limit))
        self._round.add_done_callback(_looked_at)
        while not (self._round.done() or self._interrupted or self._closed):
            waiter = self._waiter = self._loop.create_future()
            try:
                await asyncio.wait({self._round, waiter}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._waiter = None
        if not self._round.done():
            return []
        done, self._round = self._round, None
        return done.result()

    async def _forget_round(self) -> None:
        """Have brought again what came for a fetch that was given up."""
        if self._round:
            await asyncio.wait([self._round])
            done, self._round = self._round, None
            if not done.exception():
                self._possession.doubt(done.result(), self._sources)


def _looked_at(done: asyncio.Task[list[Delivery]]) -> None:
    if not done.cancelled():
        done.exception()


def _next_attempt(delivery: Delivery, wait: float) -> Delivery:
    message = delivery.message
    return Delivery(
        msgspec.structs.replace(message, attempt=message.attempt + 1),
        delivery.deliveries + 1,
        delivery.receipt,
        delivery.failed_at or time.time(),
        wait,
    )
