"""The handle on one subscription that shares its messages with other handles.

States of a handle, by its *work*, of which there is at most one at a time:

- idle: no work is under way.
- reading: one plain read was sent (`_reading`, no task; the common case).
- in a round: a task (`_round`) does whatever else is pending: claims, recovery, new groups.
- closed: every fetch raises SubscriptionClosed.

Transitions: idle -> reading or in a round, in a fetch, or by new pending work while a fetch waits
(`_work_came`); reading or in a round -> idle, when the answer came; any -> closed, by `close`.

Invariants:

- Work outlives a fetch that is cancelled or interrupted. What it brought lies in `_arrived` until a fetch
  hands it out. If none does within KEPT, it is released.
- The caller counts each lease from the begin of the fetch that returned it. So what an earlier fetch asked
  for is released when it comes late: the loop was blocked, or the process stood still.
- What the server gave to this handle is in `_arrived`, with the caller, or recovered after a lost reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from abe_router.backend import RELEASED, Delivery, Outcome, Subscription
from abe_router.backends.redis.answers import refuses_unreadable
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.pipelining import KEPT, PipelinedReads
from abe_router.backends.redis.reader import Reading, StreamReader
from abe_router.backends.redis.settlement import Settlement
from abe_router.backends.redis.stream_state import PendingReason, PendingWork
from abe_router.errors import BackendError, BackendUnavailable, SubscriptionClosed

#: How long, in seconds, closing waits for a read that is under way.
PATIENCE = 2.0


@refuses_unreadable
class RedisSubscription(Subscription):
    """Reads the streams that match, as one consumer of one group, and settles what it read.

    `start` is in milliseconds since the epoch, `lease` in seconds. `work_came` is called when `has_work` may
    have become true.
    """

    def __init__(
        self,
        node: Node,
        pattern: str,
        group: str,
        *,
        start: int,
        lease: float,
        work_came: Callable[[], None] = lambda: None,
    ) -> None:
        self.pattern, self.group = pattern, group
        self._node, self._lease, self._on_work = node, lease, work_came
        self._loop = asyncio.get_running_loop()
        self._pending = PendingWork(self._work_came)
        self.reader = StreamReader(node, pattern, group, start=start, lease=lease, pending=self._pending)
        self._pipelined = PipelinedReads(self.reader, self._pipelined_came)
        self._settlement = Settlement(node, self.reader.streams)
        self._limit = 1
        self._reading: Reading | None = None
        self._round: asyncio.Task[list[Delivery]] | None = None
        #: Whether the next reading waits for flow control.
        self._queued = False
        self._arrived: list[Delivery] = []
        #: For how long, in seconds, a later fetch may hand out what was asked for; when the work under way
        #: began, and when the oldest of what has arrived was asked for.
        self._usable = lease / 6
        self._began_at = self._asked_at = 0.0
        self._returning: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._closed = False

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        began_at = self._loop.time()
        deadline = began_at + wait
        ask = wait <= 0  # the notifier wakes fetches that wait; one that does not has to ask
        if ask:
            await self._pipelined.end(PATIENCE)
        while True:
            if self._closed:
                raise SubscriptionClosed(f"the subscription `{self.name}` is closed")
            self._collect()
            if self._arrived and began_at - self._asked_at > self._usable:
                await self._release(self._take_arrived())
                continue
            if self._arrived or self._interrupted:
                self._interrupted = False
                return self._hand_out(limit)
            self._limit = limit
            if not self._under_way:
                if ask:
                    self._pending.add_all(PendingReason.READABLE, self.reader.streams.values())
                if self._pending or not self._node.connection.up:
                    ask = False
                    self._begin()
                elif self._loop.time() >= deadline:
                    return []
                else:
                    self._pipelined.offer(limit)
            await self._sleep(None if self._under_way or self._queued else deadline)

    def interrupt(self) -> None:
        self._interrupted = True
        self._wake()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        await self._node.connection.open()
        return await self._settlement.settle(settlements)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await self._node.connection.open()
        return await self._settlement.extend(deliveries)

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        self._node.for_threads.run(self._settlement.extension_calls(deliveries), self._lease / 3)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake()
        await self._pipelined.end(PATIENCE)
        if self._under_way:
            await asyncio.wait([self._under_way], timeout=PATIENCE)
        self.reader.release()
        self._node.remove(self)
        with suppress(BackendError):
            self._collect()
        if self._returning:
            await self._returning
        await self._release(self._take_arrived())
        self.reader.delete_consumers()

    @property
    def has_work(self) -> bool:
        """Whether a fetch would do more than wait."""
        connected = self._node.connection.up and not self._closed
        return bool(self._arrived or self._under_way or self._pending) or not connected

    @property
    def _under_way(self) -> asyncio.Future[Any] | None:
        """The work that was begun."""
        return self._reading[-1][-1] if self._reading else self._round

    def _begin(self) -> None:
        """Begin work; plain reading goes without a task and the turns of the loop that one takes."""
        self._pipelined.withdraw()  # two reads at once might be handed out in the wrong order
        self._began_at = self._loop.time()
        if self._node.connection.up and not self._pending.more_than_reading:
            self._queued = not self._node.flow.admits(self._admitted)
            if self._queued:
                return
            with suppress(BackendUnavailable):
                self._reading = self.reader.ask(self._limit)
                self._reading[-1][-1].add_done_callback(self._landed)
                return
        self._round = self._loop.create_task(self.reader.round(self._limit))
        self._round.add_done_callback(self._landed)

    def _work_came(self) -> None:
        """Begin pending work at once if a fetch waits."""
        if self._waiter and not self._under_way and self._pending:
            self._begin()
        self._on_work()

    def _admitted(self) -> None:
        self._queued = False
        self._work_came()
        if not self._under_way:
            self._wake()

    def _pipelined_came(self, found: list[Delivery], usable: bool) -> None:
        """Take in what a pipelined read brought."""
        if found and (self._closed or not usable):
            self._returning = self._loop.create_task(self._release(found))
        elif found:
            self._arrive(found, self._loop.time())
            if self._waiter is None:
                self._keep()
            self._wake()
        self._work_came()

    def _landed(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            done.exception()  # marks it as seen: the next fetch raises it, and there may be none
        if self._closed:
            self.reader.release()
        elif self._waiter is None:
            self._keep()
        self._wake()

    def _collect(self) -> None:
        """Take in what finished work brought, or raise its error."""
        if self._under_way is None or not self._under_way.done():
            return
        reading, self._reading = self._reading, None
        done, self._round = self._round, None
        if reading:
            self._arrive(self.reader.accept(reading), self._began_at)
        elif done:
            self._arrive(done.result(), self._began_at)

    def _arrive(self, found: list[Delivery], asked_at: float) -> None:
        self._asked_at = min(self._asked_at, asked_at) if self._arrived else asked_at
        self._arrived += found

    def _take_arrived(self) -> list[Delivery]:
        found, self._arrived = self._arrived, []
        return found

    def _hand_out(self, limit: int) -> Sequence[Delivery]:
        """Return what has arrived, up to the limit."""
        found, self._arrived = self._arrived[:limit], self._arrived[limit:]
        if self._arrived:
            self._keep()
        return found

    def _keep(self) -> None:
        """Keep what has arrived for a while, but not until another handle may claim it."""
        self._loop.call_later(min(KEPT, self._usable), self._hand_back)

    def _hand_back(self) -> None:
        """Release what no fetch took, so that it comes again before its lease runs out."""
        if self._waiter or self._closed:
            return
        with suppress(BackendError):
            self._collect()
        if self._arrived:
            self._returning = self._loop.create_task(self._release(self._take_arrived()))

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        with suppress(BackendError):  # then they come again when their lease runs out
            await self._settlement.settle([(delivery, RELEASED) for delivery in deliveries])

    async def _sleep(self, deadline: float | None) -> None:
        self._waiter = self._loop.create_future()
        timer = None if deadline is None else self._loop.call_at(deadline, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._pipelined.withdraw()
            if timer:
                timer.cancel()

    def _wake(self) -> None:
        self._pipelined.withdraw()
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        self._on_work()
