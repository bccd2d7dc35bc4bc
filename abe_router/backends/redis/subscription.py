"""A handle on one subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abe_router.backend import RELEASED, Delivery, Outcome, Subscription
from abe_router.backends.redis.follow_ups import KEPT, FollowUps
from abe_router.backends.redis.intake import Intake, Reading
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, begin_at, group_name
from abe_router.backends.redis.publisher import Publisher
from abe_router.backends.redis.scripts import REAP
from abe_router.backends.redis.settlement import Settlement
from abe_router.backends.redis.source import Agenda, Source
from abe_router.backends.redis.sweep import Sweep
from abe_router.backends.redis.waker import Waker
from abe_router.backends.redis.window import Window
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.pattern import matches

#: Longer than any consumer can have done nothing, in milliseconds.
NEVER = 10**15
#: How long, in seconds, closing waits for a read that is under way.
PATIENCE = 2.0


class RedisSubscription(Subscription):
    """Reads the streams that match, as one consumer of one group, and settles what it read.

    `consumer` names it among the consumers of the group; `start` is in milliseconds since the epoch.
    `lost` is called when the group of a source is gone, and `closed` when the handle is.
    """

    def __init__(
        self,
        pattern: str,
        group: str,
        *,
        consumer: str,
        start: int,
        lease: float,
        line: Line,
        names: Names,
        sweep: Sweep,
        waker: Waker,
        window: Window,
        publisher: Publisher,
        lost: Callable[[RedisSubscription, Source], Awaitable[None]],
        closed: Callable[[RedisSubscription], None],
    ) -> None:
        self.pattern, self.group, self.start = pattern, group, start
        self._consumer, self._lease, self._names = consumer, lease, names
        self._line, self._sweep, self._waker, self._on_closed = line, sweep, waker, closed
        self._window, self._queued = window, False
        self._loop = asyncio.get_running_loop()
        self._sources: dict[str, Source] = {}
        self._agenda = Agenda(self._stirred)
        self._intake = Intake(line, sweep, waker, self._agenda, window, partial(lost, self))
        self._follow_ups = FollowUps(self._intake, self._agenda, waker, self._followed)
        self._settlement = Settlement(line, names, sweep, publisher, self._sources)
        self._limit = 1
        self._reading: Reading | None = None
        self._round: asyncio.Task[list[Delivery]] | None = None
        self._arrived: list[Delivery] = []
        self._returning: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._closed = False

    def learn(self, keys: Iterable[str], begin: str = "") -> None:
        """Take in the keys that match.

        A group that has to be made for one begins at `begin`, or else where the subscription does.
        """
        name, begin = group_name(self.pattern, self.group), begin or begin_at(self.start)
        for key in keys:
            if key not in self._sources and matches(self.pattern, key) and not self._closed:
                source = Source(self._names, key, name, self._consumer, self._lease, begin, self._agenda)
                self._sources[key] = source
                self._sweep.add(source)
                self._agenda.mark(self._agenda.make, [source])

    async def make(self, keys: Iterable[str], begin: str) -> None:
        """Take in keys, and make their groups at once."""
        self.learn(keys, begin)
        await self._intake.make()

    def reconnect(self) -> None:
        """Look anew at everything: the connection was lost, and with it what was on its way."""
        self._agenda.mark(self._agenda.read, self._sources.values())

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        deadline = self._loop.time() + wait
        ask = wait <= 0  # who does not wait is not told of what comes, so has to ask
        if ask:
            await self._follow_ups.end(PATIENCE)
        while True:
            self._collect()
            if self._closed:
                return []
            if self._arrived or self._interrupted:
                self._interrupted = False
                return self._hand_out(limit)
            self._limit = limit
            if not self._under_way:
                if ask:
                    self._agenda.read.update(dict.fromkeys(self._sources.values()))
                if self._agenda or not self._line.up:
                    ask = False
                    self._begin()
                elif self._loop.time() >= deadline:
                    return []
                else:
                    self._follow_ups.offer(limit)
            await self._sleep(None if self._under_way or self._queued else deadline)

    def interrupt(self) -> None:
        self._interrupted = True
        self._wake()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        await self._line.open()
        return await self._settlement.settle(settlements)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await self._line.open()
        return await self._settlement.extend(deliveries)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake()
        await self._follow_ups.end(PATIENCE)
        if self._under_way:
            await asyncio.wait([self._under_way], timeout=PATIENCE)
        self._let_go()
        self._on_closed(self)
        with suppress(BackendError):
            self._collect()
        if self._returning:
            await self._returning
        await self._release(self._arrived)
        self._arrived = []
        with suppress(BackendError):
            for source in self._sources.values():
                args = (source.group, NEVER, source.consumer)
                self._line.run(REAP, (source.stream,), args)

    @property
    def _under_way(self) -> asyncio.Future[Any] | None:
        """What was begun, and goes on when the fetch that began it is cancelled or interrupted."""
        return self._reading[-1][-1] if self._reading else self._round

    def _begin(self) -> None:
        """Begin a round; mere reading, which most is, goes without a task and the turns it takes."""
        self._follow_ups.withdraw()  # what two read at once might be handed out in the wrong order
        if self._line.up and not self._agenda.more_than_reading:
            self._queued = not self._window.admits(self._admitted)
            if self._queued:
                return
            with suppress(BackendUnavailable):
                self._reading = self._intake.ask(self._limit)
                self._reading[-1][-1].add_done_callback(self._landed)
                return
        self._round = self._loop.create_task(self._intake.take(self._limit))
        self._round.add_done_callback(self._landed)

    def _stirred(self) -> None:
        """There is more on the agenda: whoever waits in a fetch has it done at once."""
        if self._waiter and not self._under_way and self._agenda:
            self._begin()

    def _admitted(self) -> None:
        self._queued = False
        self._stirred()
        if not self._under_way:
            self._wake()

    def _followed(self, found: list[Delivery], usable: bool) -> None:
        """Take in what a read brought that followed the wait."""
        if found and (self._closed or not usable):
            self._returning = self._loop.create_task(self._release(found))
        elif found:
            self._arrived += found
            if self._waiter is None:
                self._keep()
            self._wake()
        self._stirred()

    def _landed(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # whoever fetches next is told; if nobody does, nobody needs to be
        if self._closed:
            self._let_go()
        elif self._waiter is None:
            self._keep()
        self._wake()

    def _collect(self) -> None:
        """Take in what is done, or raise its error."""
        if self._under_way is None or not self._under_way.done():
            return
        reading, self._reading = self._reading, None
        done, self._round = self._round, None
        if reading:
            self._arrived += self._intake.accept(reading)
        elif done:
            self._arrived += done.result()

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        """Return what has arrived, up to the limit."""
        found, self._arrived = self._arrived[:limit], self._arrived[limit:]
        if self._arrived:
            self._keep()
        return found

    def _keep(self) -> None:
        """Keep what has arrived for a while, but not so long that it may be somebody else's by then."""
        self._loop.call_later(min(KEPT, self._lease / 2), self._hand_back)

    def _hand_back(self) -> None:
        """Hand back what nobody fetched, so that it need not wait for its lease to run out."""
        if self._waiter or self._closed:
            return
        with suppress(BackendError):
            self._collect()
        if self._arrived:
            self._returning = self._loop.create_task(self._release(self._arrived))
            self._arrived = []

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        with suppress(BackendError):  # then they come again when their lease runs out
            await self._settlement.settle([(delivery, RELEASED) for delivery in deliveries])

    def _let_go(self) -> None:
        for source in self._sources.values():
            self._waker.forget(source)
            self._sweep.remove(source)

    async def _sleep(self, deadline: float | None) -> None:
        self._waiter = self._loop.create_future()
        timer = None if deadline is None else self._loop.call_at(deadline, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._follow_ups.withdraw()
            if timer:
                timer.cancel()

    def _wake(self) -> None:
        self._follow_ups.withdraw()
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
