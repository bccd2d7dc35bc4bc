"""What one handle knows of each of its streams, and why it has to look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import islice

from abe_router.backend import Delivery
from abe_router.backends.redis.group_consumers import GroupConsumer, GroupConsumers
from abe_router.backends.redis.names import Names

#: What one reply may bring, in bytes of payload, if the next messages are like the last ones; and the assumed
#: size of the first messages.
_BYTES, _LARGE = 4 * 1024 * 1024, 4096
#: Most entries of one reply, however small the last ones were: the next may be as large as a payload can be.
MOST_ENTRIES = 500
#: The share of a stream that is worth the cost of a read and of an ack: these take as long as 5 messages.
_WORTHWHILE = 100
#: One of so many deliveries is measured.
_SAMPLE = 16


class PendingReason(IntEnum):
    """Why a handle has to look at a stream."""

    #: Its group may not exist yet.
    NEW = 0
    #: Its group is gone.
    GROUP_LOST = 1
    #: A lost reply may have delivered entries to us.
    REPLY_LOST = 2
    #: It may hold entries to deliver again.
    CLAIMABLE = 3
    #: It may hold new entries.
    READABLE = 4
    #: It held nothing new. The notifier needs to know how far the group got, and then waits for more.
    DRAINED = 5


class StreamState:
    """A stream, the group and the consumers that read it, and how far they got.

    `begin` is where the group begins if it has to be created. Everything up to `position` was delivered to
    the group. `consumers` know what was delivered to us.
    """

    __slots__ = (
        "begin",
        "consumers",
        "dead",
        "delayed",
        "failures",
        "group",
        "key",
        "lease",
        "likely",
        "most",
        "pending",
        "pipelined",
        "position",
        "stream",
    )

    def __init__(
        self,
        names: Names,
        key: str,
        group: str,
        consumer: str,
        lease: float,
        begin: str,
        pending: PendingWork,
    ) -> None:
        self.key, self.group, self.begin, self.pending = key, group, begin, pending
        self.consumers = GroupConsumers(consumer)
        self.stream = names.stream(key)
        self.delayed = names.delayed(key, group)
        self.failures = names.failures(key, group)
        self.dead = names.dead(key, group)
        #: In milliseconds, as Redis counts.
        self.lease = max(1, round(lease * 1000))
        self.position = b"0-0"
        #: Most entries of one reply, which both sides hold in memory whole.
        self.most = min(MOST_ENTRIES, _BYTES // _LARGE)
        #: How many new entries to ask for: one more than the last reply had, because a full reply has to be
        #: followed by another read; many if it was full; 0 before the first reply.
        self.likely = 0
        #: Whether a pipelined read of it is under way. Nothing else reads it meanwhile.
        self.pipelined = False

    def size(self, count: int) -> int:
        """Return how many bytes a reply with so many entries counts for: 4096 each, or more."""
        return count * max(_BYTES // self.most, _LARGE)

    def received(self, deliveries: Sequence[Delivery], consumer: GroupConsumer) -> None:
        """Record deliveries as held, and estimate the size of the next ones from some of them."""
        if deliveries:
            self.consumers.received([delivery.receipt for delivery in deliveries], consumer)
            size = max(len(delivery.message.body) for delivery in deliveries[::_SAMPLE])
            self.most = max(1, min(MOST_ENTRIES, _BYTES // max(size, 1)))

    def replied(self, found: int, count: int) -> None:
        """Record how many new entries a reply brought, of so many at most."""
        self.likely = self.pending.likely = _WORTHWHILE if found == count else min(found + 1, _WORTHWHILE)

    def wake(self) -> None:
        """Record that the stream has something new; a pipelined read finds that by itself."""
        self.pending.expected = self
        if not self.pipelined:
            self.pending.signal(PendingReason.READABLE, [self])


class PendingWork:
    """The streams that a handle has to look at, each with its reasons.

    For each reason the streams come in the order in which they were added, so each gets its turn. `wake` is
    called when work arrives from outside a read.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._streams: list[dict[StreamState, None]] = [{} for _ in PendingReason]
        #: The stream that had something new last, and so is likely to be next.
        self.expected: StreamState | None = None
        #: Whether the last round claimed. The next one then reads new entries first, unless something was
        #: handed back meanwhile: that comes before them.
        self.claimed_last = False
        #: How many new entries to ask a stream for at least: as many as the last one that was read is asked
        #: for next, because a burst comes to many alike.
        self.likely = 1

    def __bool__(self) -> bool:
        return self.readable or self.more_than_reading

    @property
    def readable(self) -> bool:
        """Whether there may be new entries to read."""
        return any(self.idle(PendingReason.READABLE))

    @property
    def more_than_reading(self) -> bool:
        """Whether there is any other reason than new entries."""
        new, lost, _, claimable, _, drained = self._streams
        return bool(drained or claimable or new or lost) or any(self.idle(PendingReason.REPLY_LOST))

    def has(self, reason: PendingReason) -> bool:
        """Say whether some stream has the reason."""
        return bool(self._streams[reason])

    def of(self, reason: PendingReason) -> Sequence[StreamState]:
        """Return the streams that have the reason, in their order."""
        return tuple(self._streams[reason])

    def idle(self, reason: PendingReason) -> Iterator[StreamState]:
        """Yield the streams that have the reason and no pipelined read.

        What a pipelined read brings may be on its way; it comes without another read.
        """
        return (stream for stream in self._streams[reason] if not stream.pipelined)

    def add(self, reason: PendingReason, stream: StreamState) -> None:
        """Add a reason to look at a stream."""
        self._streams[reason][stream] = None

    def add_all(self, reason: PendingReason, streams: Iterable[StreamState]) -> None:
        """Add a reason to look at each of the streams."""
        self._streams[reason].update(dict.fromkeys(streams))

    def signal(self, reason: PendingReason, streams: Iterable[StreamState]) -> None:
        """Add a reason to look at each of the streams, and wake the handle."""
        self.add_all(reason, streams)
        self._wake()

    def remove(self, reason: PendingReason, stream: StreamState) -> None:
        """Remove a reason from a stream that has it."""
        del self._streams[reason][stream]

    def take(self, reason: PendingReason) -> Sequence[StreamState]:
        """Remove the reason from all streams, and return them in their order."""
        streams = tuple(self._streams[reason])
        self._streams[reason].clear()
        return streams


def shares(streams: Iterable[StreamState], limit: int) -> list[tuple[StreamState, int]]:
    """Return streams to read, the first ones, each with its share; the shares add up to the limit at most.

    A read of one entry costs as much as one of many. So when a fair share is small, a stream gets what it is
    likely to have, and some streams wait for the next round.
    """
    waiting = tuple(islice(streams, limit))
    fair, more = divmod(limit, len(waiting))
    if fair >= _WORTHWHILE:
        return [(stream, fair + (position < more)) for position, stream in enumerate(waiting)]
    chosen: list[tuple[StreamState, int]] = []
    for stream in waiting:
        share = max(fair, stream.likely, stream.pending.likely)
        if share > limit and chosen:
            break  # what is left of the limit would be filled, and look like a burst
        chosen.append((stream, min(share, limit)))
        limit -= chosen[-1][1]
    return chosen
