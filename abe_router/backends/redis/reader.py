"""Reads the streams of one subscription, for one handle.

The state of each stream is the set of its reasons (`PendingReason`) in `PendingWork`. A stream without a
reason waits with the notifier. A round works reasons off in this order; what it cannot do keeps its reason:

    NEW         create the group                    -> READABLE, and CLAIMABLE if it exists
    GROUP_LOST  create the group again              -> READABLE; after a delay if it was lost not long ago
    DRAINED     look up how far the group got       -> none: the notifier waits from there
    REPLY_LOST  take pending entries we do not know -> none
    CLAIMABLE   claim due and expired entries       -> CLAIMABLE if there is more
    READABLE    read new entries                    -> READABLE if the reply was full, DRAINED if empty,
                                                       else none: the last entry is the position

From outside come READABLE (notifier, reconnect), CLAIMABLE and GROUP_LOST (reaper, settlement). Of errors,
NOGROUP turns any reason into GROUP_LOST, and a lost connection adds REPLY_LOST.

Invariants:

- A round that was begun is never cancelled: what the server delivered would be lost on the way.
- An entry is in `GroupConsumers.held` from its delivery to us until we know that it is settled or gone.
- A stream with a pipelined read is neither read nor recovered.
- CLAIMABLE and READABLE take turns, so that neither keeps the other waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from abe_router.backend import Delivery
from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.entry import MOST_BYTES, new_deliveries, taken_deliveries
from abe_router.backends.redis.group_consumers import GroupConsumer
from abe_router.backends.redis.names import consumer_name, group_name, position_before
from abe_router.backends.redis.node import Node
from abe_router.backends.redis.protocol import ServerError
from abe_router.backends.redis.reaper import HORIZON
from abe_router.backends.redis.scripts import CLAIM, REAP, RECOVER, RECREATE
from abe_router.backends.redis.stream_state import PendingReason, PendingWork, StreamState, shares
from abe_router.backoff import Backoff
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.pattern import matches

_log = logging.getLogger(__name__)

#: Delays before a group that was lost again is created again, in seconds: the first one, which doubles, and
#: the longest. After as long without a loss it is the first one again.
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
#: More milliseconds than any consumer has been idle.
_NEVER = 10**15

#: A read that was asked for: of which stream, by which consumer, how many entries at most, the reply to come.
Asked = tuple[StreamState, GroupConsumer, int, asyncio.Future[Any]]
Reading = list[Asked]


class StreamReader:
    """Reads, claims and recovers for one consumer of one group, a round at a time.

    `start` is in milliseconds since the epoch, `lease` in seconds.
    """

    def __init__(
        self, node: Node, pattern: str, group: str, *, start: int, lease: float, pending: PendingWork
    ) -> None:
        self.node, self.pending = node, pending
        self._pattern, self._group, self._start, self._lease = pattern, group, start, lease
        self._consumer = consumer_name(lease)
        self._connection = node.connection
        self._loop = asyncio.get_running_loop()
        self._streams: dict[str, StreamState] = {}
        #: Until when each lost group is not created once more, and the backoff of that.
        self._recreated: dict[StreamState, tuple[float, Backoff]] = {}
        self._delayed: set[StreamState] = set()

    @property
    def streams(self) -> Mapping[str, StreamState]:
        """The streams, by key."""
        return self._streams

    async def open(self, keys: Iterable[str], begin: str) -> None:
        """Take in keys, and create their groups, which begin at `begin`."""
        self.learn(keys, begin)
        await self.create_groups()

    def reconnect(self) -> None:
        """Look at all streams again: the connection was lost, and replies with it."""
        for stream in self._streams.values():
            stream.consumers.distrust_all()
        self.pending.signal(PendingReason.READABLE, self._streams.values())

    def learn(self, keys: Iterable[str], begin: str = "") -> None:
        """Take in the keys that match.

        A group that has to be created begins at `begin`, by default where the subscription starts.
        """
        name, begin = group_name(self._pattern, self._group), begin or position_before(self._start)
        args = name, self._consumer, self._lease, begin, self.pending
        unknown = (key for key in keys if key not in self._streams and matches(self._pattern, key))
        new = {key: StreamState(self.node.names, key, *args) for key in unknown}
        self._streams |= new
        for stream in new.values():
            self.node.reaper.add(stream)
        if new:
            self.pending.signal(PendingReason.NEW, new.values())

    async def round(self, limit: int) -> list[Delivery]:
        """Do one round; return what it brought, which may be nothing.

        Raise BackendError when it can bring nothing; what it could not do stays pending.
        """
        pending = self.pending
        await self.prepare()
        if pending.has(PendingReason.DRAINED):
            await self._wait_for_more()
        if pending.has(PendingReason.REPLY_LOST) and (found := await self._recover()):
            return found
        if pending.has(PendingReason.CLAIMABLE) and not (pending.readable and pending.claimed_last):
            found = await self._claim(limit)
            pending.claimed_last = bool(found)
            if found:
                return found
        pending.claimed_last = False
        if not pending.readable:
            return []
        reading = self.ask(limit)
        await asyncio.wait([reading[-1][-1]])  # the others are answered before the last one, or sent again
        return self.accept(reading)

    async def prepare(self) -> None:
        """Connect if necessary, and make sure that all groups exist."""
        await self._connection.open()
        if self.pending.has(PendingReason.NEW):
            await self.create_groups()
        if self.pending.has(PendingReason.GROUP_LOST):
            await self._recreate_groups()

    def ask(self, limit: int) -> Reading:
        """Ask for new entries of as many streams as the limit allows, a fair share of each.

        Raise BackendUnavailable when the connection is down.
        """
        reading = Reading()
        for stream, share in shares(self.pending.idle(PendingReason.READABLE), limit):
            reading.append(self.read(stream, share, self._connection))
            self.pending.remove(PendingReason.READABLE, stream)
        size = sum(stream.size(count) for stream, _, count, _ in reading)
        self.node.flow.sent(size, reading[-1][-1])
        self._connection.flush_early(len(reading))
        return reading

    def read(self, stream: StreamState, limit: int, connection: Connection) -> Asked:
        """Ask over a connection for new entries of a stream; raise BackendUnavailable when that is down."""
        count = min(limit, stream.most)
        consumer = stream.consumers.for_read(count)
        command = ("GROUP", stream.group, consumer.name, "COUNT", count, "STREAMS", stream.stream, ">")
        reply = connection.send("XREADGROUP", *command)
        consumer.under_way += 1
        return stream, consumer, count, reply

    def accept(self, reading: Reading) -> list[Delivery]:
        """Return what a reading brought, once all its replies are there; raise as `round` does."""
        found: list[Delivery] = []
        failed: BackendError | None = None
        for stream, consumer, count, reply in reading:
            if not reply.done():  # it was refused and is sent again: what it brings is recovered then
                reply.add_done_callback(partial(self._answered_late, stream, consumer))
                continue
            consumer.under_way -= 1
            try:
                answered = reply.result()
            except BackendError as error:
                stream.consumers.suspend(consumer)
                failed = self.failed(stream, PendingReason.READABLE, error) or failed
                continue
            if not answered:
                stream.replied(0, count)
                self.pending.add(PendingReason.DRAINED, stream)
                continue
            entries = answered[0][1]
            found += self.received(stream, consumer, *new_deliveries(entries, stream.key, stream.group))
            stream.position = entries[-1][0]
            stream.replied(len(entries), count)
            if len(entries) < count:
                self.node.notifier.wait(stream, patient=self.pending.readable)
            else:
                self.pending.add(PendingReason.READABLE, stream)
        if failed and not found:
            raise failed
        return found

    def _answered_late(self, stream: StreamState, consumer: GroupConsumer, _: asyncio.Future[Any]) -> None:
        stream.consumers.suspend(consumer)
        self.pending.signal(PendingReason.REPLY_LOST, [stream])
        self.pending.signal(PendingReason.READABLE, [stream])

    async def create_groups(self) -> None:
        """Create the groups that may not exist yet, and their streams.

        A group that cannot be created does not keep the others waiting: it is logged and tried again later.
        When none can be created, the error is raised instead, for the caller to log and to try again.
        """
        failed: list[ServerError] = []
        created = 0
        sent = [
            (s, self._connection.send("XGROUP", "CREATE", s.stream, s.group, s.begin, "MKSTREAM"))
            for s in self.pending.of(PendingReason.NEW)
        ]
        for stream, reply in sent:
            try:
                await reply
            except ServerError as error:
                if error.code != "BUSYGROUP":
                    why = f"stream `{stream.stream}` gets no group `{stream.group}`: {error}"
                    failed.append(ServerError(why, error.code))
                    self.pending.remove(PendingReason.NEW, stream)
                    self._loop.call_later(_LONGEST_DELAY, self.pending.signal, PendingReason.NEW, [stream])
                    continue
                self.pending.add(PendingReason.CLAIMABLE, stream)  # a new group has nothing to claim
            created += 1
            self.pending.remove(PendingReason.NEW, stream)
            self.pending.add(PendingReason.READABLE, stream)
        if failed and not created:
            raise failed[0]
        for refused in failed:
            _log.warning("%s", refused)

    def release(self) -> None:
        """Let notifier and reaper forget the streams."""
        for stream in self._streams.values():
            self.node.notifier.cancel(stream)
            self.node.reaper.remove(stream)

    def delete_consumers(self) -> None:
        """Delete this consumer from the groups in which it holds nothing."""
        with suppress(BackendError):
            for stream in self._streams.values():
                self._connection.run(REAP, (stream.stream,), (stream.group, _NEVER, *stream.consumers.names))

    def taken(
        self,
        stream: StreamState,
        consumer: GroupConsumer,
        taken: Sequence[Any],
        gone: Sequence[bytes],
        large: Sequence[bytes],
    ) -> list[Delivery]:
        """Return what `take` in the scripts took, and log what it did not: entries that are gone or large."""
        if gone:
            text = "messages of stream `%s` were deleted before group `%s` had settled them: %d"
            _log.warning(text, stream.stream, stream.group, len(gone))
            stream.consumers.forget(gone)
        if large:
            text = "entries of stream `%s` are larger than %d MiB and became dead letters of group `%s`: %s"
            ids = ", ".join(entry_id.decode() for entry_id in large)
            _log.warning(text, stream.stream, MOST_BYTES >> 20, stream.group, ids)
            stream.consumers.forget(large)
        return self.received(stream, consumer, *taken_deliveries(taken, stream.key, stream.group))

    def received(
        self, stream: StreamState, consumer: GroupConsumer, found: list[Delivery], others: list[bytes]
    ) -> list[Delivery]:
        """Record deliveries, and ack the entries for other groups."""
        stream.received(found, consumer)
        if others:
            consumer.unsettled.update(others)
            with suppress(BackendUnavailable):  # then they come again, and are acked then
                reply = self._connection.send("XACK", stream.stream, stream.group, *others)
                reply.add_done_callback(partial(consumer.acked, others))
        return found

    def failed(self, stream: StreamState, reason: PendingReason, error: BackendError) -> BackendError | None:
        """Record what an error means for a stream; return it unless that takes care of it."""
        if isinstance(error, ServerError) and error.code == "NOGROUP":
            self.pending.add(PendingReason.GROUP_LOST, stream)
            return None
        self.pending.add(reason, stream)
        if isinstance(error, BackendUnavailable):
            self.pending.add(PendingReason.REPLY_LOST, stream)
        return error

    async def _wait_for_more(self) -> None:
        """Let the notifier wait for drained streams, from where their groups got through other consumers."""
        sent = [
            (s, self._connection.send("XINFO", "GROUPS", s.stream))
            for s in self.pending.take(PendingReason.DRAINED)
        ]
        for stream, reply in sent:
            try:
                rows = await reply
            except BackendError as error:
                self.failed(stream, PendingReason.READABLE, error)
                continue
            for row in rows:
                group = dict(zip(row[::2], row[1::2], strict=True))
                if group[b"name"] == stream.group.encode():
                    stream.position = group[b"last-delivered-id"]
            self.node.notifier.wait(stream, patient=self.pending.readable)

    async def _claim(self, limit: int) -> list[Delivery]:
        """Claim entries to deliver again, of as many streams as the limit allows."""
        sent: list[tuple[StreamState, asyncio.Future[Any]]] = []
        for stream, share in shares(self.pending.of(PendingReason.CLAIMABLE), limit):
            keys = (stream.stream, stream.failures, stream.delayed, stream.dead)
            args = (stream.group, stream.consumers.first.name, stream.lease, HORIZON, min(share, stream.most))
            sent.append((stream, self._connection.run(CLAIM, keys, args)))
            self.pending.remove(PendingReason.CLAIMABLE, stream)
        found: list[Delivery] = []
        failed: BackendError | None = None
        for stream, reply in sent:
            try:
                *taken, more = await reply
            except BackendError as error:
                failed = self.failed(stream, PendingReason.CLAIMABLE, error) or failed
                continue
            if more == 0:
                self.pending.add(PendingReason.CLAIMABLE, stream)
            elif more > 0:
                self.node.reaper.expect(stream, more / 1000)
            found += self.taken(stream, stream.consumers.first, *taken)
        if failed and not found:
            raise failed
        return found

    async def _recover(self) -> list[Delivery]:
        """Take the pending entries that the server delivered to us in a reply that was lost."""
        found: list[Delivery] = []
        failed: BackendError | None = None
        for stream in tuple(self.pending.idle(PendingReason.REPLY_LOST)):
            self.pending.remove(PendingReason.REPLY_LOST, stream)
            try:
                for consumer in stream.consumers.uncertain:
                    if not await self._recover_for(stream, consumer, found):
                        self.pending.add(PendingReason.REPLY_LOST, stream)
                        break
                else:
                    stream.consumers.recovered()
            except BackendError as error:
                failed = self.failed(stream, PendingReason.REPLY_LOST, error) or failed
        if failed and not found:
            raise failed
        return found

    async def _recover_for(self, stream: StreamState, consumer: GroupConsumer, found: list[Delivery]) -> bool:
        """Recover what one consumer has; return False if there is more than one answer may bring."""
        keys = (stream.stream, stream.failures, stream.delayed, stream.dead)
        first, rows = b"-", [[b""]]
        while rows:
            pending = ("XPENDING", stream.stream, stream.group, first, "+", 100, consumer.name)
            rows = await self._connection.send(*pending)
            if unknown := [row[0] for row in rows if row[0] not in stream.consumers.held]:
                args = (stream.group, consumer.name, *unknown)
                *taken, full = await self._connection.run(RECOVER, keys, args)
                found += self.taken(stream, consumer, *taken)
                if full:
                    return False
            first = b"(" + rows[-1][0] if rows else b""
        return True

    async def _recreate_groups(self) -> None:
        """Create lost groups again, from the beginning of what their streams hold now."""
        for stream in self.pending.of(PendingReason.GROUP_LOST):
            self.pending.remove(PendingReason.GROUP_LOST, stream)
            if stream in self._delayed:
                continue
            until, backoff = self._recreated.get(stream) or (0.0, _new_backoff())
            try:
                # Before a delay too: a key without a registered subscription would be trimmed.
                await self.node.allow_group(self._pattern, self._group, self._start, stream.key)
                if self._loop.time() < until:
                    self._delayed.add(stream)
                    self._loop.call_at(until, self._retry_group, stream)
                    continue
                keys = (stream.stream, stream.failures, stream.delayed)
                created = await self._connection.run(RECREATE, keys, (stream.group,))
            except BackendError:
                self.pending.add(PendingReason.GROUP_LOST, stream)
                raise
            now = self._loop.time()
            if now - until >= _LONGEST_DELAY:
                backoff.reset()
            self._recreated[stream] = now + backoff.next(), backoff
            stream.position = b"0-0"
            stream.consumers.forget_all()
            self.pending.add(PendingReason.READABLE, stream)
            if created:
                self.node.reaper.losses.add(stream.stream, stream.group)

    def _retry_group(self, stream: StreamState) -> None:
        self._delayed.discard(stream)
        self.pending.signal(PendingReason.GROUP_LOST, [stream])


def _new_backoff() -> Backoff:
    return Backoff(_FIRST_DELAY, _LONGEST_DELAY, jitter=False)
