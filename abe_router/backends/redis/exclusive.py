"""The handle on one subscription that owns each of its streams while it reads them.

A stream within a group has one owner at most, until a time that each read and each renewal puts off.
`ACQUIRE` decides in the step that delivers. States of a stream, as one handle sees them:

- *owned*: the last ACQUIRE delivered. The next one is due when there is work, and after a third of the lease.
- *waiting*: another consumer owns it, or still holds leases of it. The next ACQUIRE is due when that
  ownership ends, or earlier, when the owner releases it and the notifier sees that.

Invariants: with the ownership all leases of its entries go, in the same step; deliveries come in the order
of the stream; and what came for a fetch that was given up is delivered again (`_to_redeliver`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from abe_router.backend import Delayed, Delivery, ExclusiveSubscription, Outcome
from abe_router.backends.redis.answers import refuses_unreadable
from abe_router.backends.redis.blocking_connection import ScriptCall
from abe_router.backends.redis.entry import new_deliveries
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.protocol import Arg
from abe_router.backends.redis.reader import StreamReader
from abe_router.backends.redis.scripts import ACQUIRE, RELEASE_OWNERSHIP, RENEW
from abe_router.backends.redis.settlement import Settlement
from abe_router.backends.redis.stream_state import PendingReason, PendingWork, StreamState, shares
from abe_router.backends.redis.subscription import PATIENCE
from abe_router.errors import BackendError, SubscriptionClosed


class ReleaseWaiter:
    """Waits for the release of a stream by its owner."""

    def __init__(self, state: StreamState, stream: str) -> None:
        self._state, self.stream, self.position = state, stream, b"0-0"

    def wake(self) -> None:
        """Let the handle try to acquire the stream."""
        self._state.wake()


class Ownership:
    """Acquires, renews and releases the streams of one handle, and reads those it owns."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader, self._pending, self._node = reader, reader.pending, reader.node
        self._connection = reader.node.connection
        self._loop = asyncio.get_running_loop()
        self._to_redeliver: dict[StreamState, None] = {}
        self._waiters: dict[StreamState, ReleaseWaiter] = {}
        self._timers: dict[StreamState, asyncio.TimerHandle] = {}

    async def round(self, limit: int) -> list[Delivery]:
        """Do one round; return what it brought, which may be nothing, and raise as StreamReader does."""
        pending = self._pending
        await self._reader.prepare()
        # One script finds whatever there is, for any reason.
        lost = pending.take(PendingReason.REPLY_LOST)
        self._to_redeliver.update(dict.fromkeys(lost))
        for reason in (PendingReason.CLAIMABLE, PendingReason.DRAINED):
            pending.add_all(PendingReason.READABLE, pending.take(reason))
        return await self._acquire(limit) if pending.has(PendingReason.READABLE) else []

    def redeliver(self, deliveries: Iterable[Delivery]) -> None:
        """Let the next round deliver these again: no fetch returned them."""
        for delivery in deliveries:
            stream = self._reader.streams[delivery.message.key]
            stream.consumers.forget([delivery.receipt])
            self._to_redeliver[stream] = None
            self._pending.add(PendingReason.READABLE, stream)

    def renewal_calls(self, deliveries: Iterable[Delivery]) -> list[ScriptCall]:
        """Return the calls that renew the ownership of the streams of these deliveries."""
        streams, names = self._reader.streams, self._node.names
        found = [streams[key] for key in {each.message.key for each in deliveries} if key in streams]
        return [
            ScriptCall(
                RENEW, (names.owner(stream.key, stream.group),), (stream.consumers.first.name, stream.lease)
            )
            for stream in found
        ]

    def stop(self) -> None:
        """Wait for no stream any more."""
        for waiter in self._waiters.values():
            self._node.notifier.cancel(waiter)
        for timer in self._timers.values():
            timer.cancel()

    def release(self) -> list[asyncio.Future[Any]]:
        """Release all streams; return the replies."""
        return [
            self._connection.run(RELEASE_OWNERSHIP, self._names(stream), (stream.consumers.first.name,))
            for stream in self._reader.streams.values()
        ]

    def _names(self, stream: StreamState) -> tuple[str, str]:
        names = self._node.names
        return names.owner(stream.key, stream.group), names.released(stream.key, stream.group)

    async def _acquire(self, limit: int) -> list[Delivery]:
        """Acquire streams and read them, as many as the limit allows."""
        sent = []
        for stream, share in shares(self._pending.of(PendingReason.READABLE), limit):
            count = min(share, stream.most)
            keys = (stream.stream, stream.failures, stream.delayed, *self._names(stream), stream.dead)
            known: tuple[Arg, ...] = (
                (len(stream.consumers.held), *stream.consumers.held) if stream in self._to_redeliver else ()
            )
            args = (stream.group, stream.consumers.first.name, stream.lease, count, *known)
            sent.append((stream, count, self._connection.run(ACQUIRE, keys, args)))
            self._pending.remove(PendingReason.READABLE, stream)
        found: list[Delivery] = []
        failed: BackendError | None = None
        for stream, count, reply in sent:
            try:
                millis, released, *rest = await reply
            except BackendError as error:
                failed = self._reader.failed(stream, PendingReason.READABLE, error) or failed
                continue
            self._to_redeliver.pop(stream, None)
            if rest:
                found += self._acquired(stream, count, *rest)
            else:
                self._wait(stream, released, millis / 1000)
        if failed and not found:
            raise failed
        return found

    def _acquired(
        self,
        stream: StreamState,
        count: int,
        taken: Sequence[Any],
        new: Sequence[Any],
        gone: Sequence[bytes],
        large: Sequence[bytes],
        last: bytes,
        full: int,
    ) -> list[Delivery]:
        """Take in what the owner of a stream got, and plan to keep the ownership."""
        if waiter := self._waiters.pop(stream, None):
            self._node.notifier.cancel(waiter)
        waits = {row[0]: int(row[4]) / 1000 for row in taken if int(row[4]) > 0}
        found = [
            msgspec.structs.replace(each, wait=waits[each.receipt]) if each.receipt in waits else each
            for each in self._reader.taken(
                stream, stream.consumers.first, [row[:4] for row in taken], gone, large
            )
        ]
        found += self._reader.received(
            stream, stream.consumers.first, *new_deliveries(new, stream.key, stream.group)
        )
        stream.position = last
        if len(taken) + len(new) < count and not full:
            self._node.notifier.wait(stream)
        else:
            self._pending.add(PendingReason.READABLE, stream)
        self._try_in(stream, stream.lease / 3000)
        return found

    def _wait(self, stream: StreamState, released: bytes, seconds: float) -> None:
        """Try again when the owner releases the stream, or when its ownership would end."""
        stream.consumers.forget_all()
        waiter = self._waiters.get(stream)
        if waiter is None:
            waiter = self._waiters[stream] = ReleaseWaiter(stream, self._names(stream)[1])
        waiter.position = released
        self._node.notifier.wait(waiter)
        self._try_in(stream, seconds)

    def _try_in(self, stream: StreamState, seconds: float) -> None:
        if timer := self._timers.get(stream):
            timer.cancel()
        self._timers[stream] = self._loop.call_later(max(seconds, 0.001), stream.wake)


@refuses_unreadable
class ExclusiveRedisSubscription(ExclusiveSubscription):
    """Owns each stream that no other exclusive handle owns, from its first fetch on.

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
        self._pending = PendingWork(self._wake)
        self.reader = StreamReader(node, pattern, group, start=start, lease=lease, pending=self._pending)
        self._ownership = Ownership(self.reader)
        self._settlement = Settlement(node, self.reader.streams)
        self._round: asyncio.Task[list[Delivery]] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._closed = False

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        deadline = self._loop.time() + wait
        if wait <= 0:  # the notifier wakes fetches that wait; one that does not has to ask
            self._pending.add_all(PendingReason.READABLE, self.reader.streams.values())
        await self._forget_round()
        while not self._closed and not self._interrupted:
            if self._pending or not self._node.connection.up:
                if found := await self._one_round(limit):
                    return found
            elif self._loop.time() >= deadline:
                return []
            else:
                await self._sleep(deadline)
        if self._closed:
            raise SubscriptionClosed(f"the subscription `{self.name}` is closed")
        self._interrupted = False
        return []

    def interrupt(self) -> None:
        self._interrupted = True
        self._wake()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        await self._node.connection.open()
        refused = await self._settlement.settle(settlements)
        streams = self.reader.streams
        keys = {delivery.message.key for delivery, outcome in settlements if isinstance(outcome, Delayed)}
        self._pending.signal(PendingReason.READABLE, [streams[key] for key in keys & streams.keys()])
        return refused

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        await self._node.connection.open()
        refused = set(await self._settlement.postpone(failed))
        now = time.time()
        return [
            None if each in refused else each.next_attempt(receipt=each.receipt, failed_at=now, wait=seconds)
            for each, seconds in failed
        ]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        await self._node.connection.open()
        renewals = [self._node.connection.run(*call) for call in self._ownership.renewal_calls(deliveries)]
        refused = await self._settlement.extend(deliveries)
        # A server without memory may refuse these alone, and the leases end with the ownership.
        await asyncio.gather(*renewals)
        return refused

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        ownership, leases = self._ownership.renewal_calls, self._settlement.extension_calls
        self._node.for_threads.run([*ownership(deliveries), *leases(deliveries)], self._lease / 3)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._round:
            await asyncio.wait([self._round], timeout=PATIENCE)
        self._ownership.stop()
        self.reader.release()
        self._node.remove(self)
        with suppress(BackendError):
            released = self._ownership.release()
            self.reader.delete_consumers()
            await asyncio.gather(*released)

    @property
    def has_work(self) -> bool:
        """Whether a fetch would do more than wait."""
        connected = self._node.connection.up and not self._closed
        return bool(self._pending or self._round) or not connected

    async def _one_round(self, limit: int) -> Sequence[Delivery]:
        """Return what a round brings; nothing when it is interrupted before."""
        # It outlives a cancelled fetch: what the server delivered would be lost on the way.
        self._round = self._loop.create_task(self._ownership.round(limit))
        self._round.add_done_callback(_mark_seen)
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
        """Let what came for a fetch that was given up be delivered again."""
        if self._round:
            await asyncio.wait([self._round])
            done, self._round = self._round, None
            if not done.exception():
                self._ownership.redeliver(done.result())

    async def _sleep(self, deadline: float) -> None:
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(deadline, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        self._on_work()


def _mark_seen(done: asyncio.Task[list[Delivery]]) -> None:
    if not done.cancelled():
        done.exception()
