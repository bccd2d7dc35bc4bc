"""One stream as one handle reads it, and what the handle has to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from abe_router.backend import Delivery
from abe_router.backends.redis.names import Names

#: What one answer may bring, in bytes of payload, so long as the next ones are like the last ones; and how
#: large the first ones are taken to be.
_BYTES, _LARGE = 4 * 1024 * 1024, 4096
#: One of so many deliveries is measured.
_SAMPLE = 16


class Source:
    """A stream, the group and the consumer that read it, and how far that is.

    `position` is an entry up to which the group was handed everything. `hand` are the entries that were
    handed to us and of which we do not know that they left us again. `begin` is where the group begins if
    it has to be made.
    """

    __slots__ = (
        "agenda",
        "begin",
        "consumer",
        "dead",
        "delayed",
        "failures",
        "group",
        "hand",
        "key",
        "lease",
        "most",
        "position",
        "stream",
    )

    def __init__(
        self, names: Names, key: str, group: str, consumer: str, lease: float, begin: str, agenda: Agenda
    ) -> None:
        self.key, self.group, self.consumer, self.begin, self.agenda = key, group, consumer, begin, agenda
        self.stream = names.stream(key)
        self.delayed = names.delayed(key, group)
        self.failures = names.failures(key, group)
        self.dead = names.dead(key, group)
        #: In milliseconds, as Redis counts.
        self.lease = max(1, round(lease * 1000))
        self.position = b"0-0"
        #: How many entries may come in one answer, since it is held in memory whole, on both sides.
        self.most = _BYTES // _LARGE
        self.hand: set[bytes] = set()

    def size(self, count: int) -> int:
        """Return how many bytes an answer with so many entries counts for: 4096 each, or more."""
        return count * max(_BYTES // self.most, _LARGE)

    def received(self, deliveries: Sequence[Delivery]) -> None:
        """Note deliveries as ours, and from some of them how large they are here."""
        if deliveries:
            self.hand.update([delivery.receipt for delivery in deliveries])
            size = max(len(delivery.message.body) for delivery in deliveries[::_SAMPLE])
            self.most = max(1, _BYTES // max(size, 1))

    def stir(self) -> None:
        """Note that the stream has something new; a read that follows the wait for it finds out by itself."""
        self.agenda.expected = self
        if self not in self.agenda.followed:
            self.agenda.mark(self.agenda.read, [self])


Marks = dict[Source, None]  # a set that keeps its order, so that every source has its turn


class Agenda:
    """The sources a handle has to look at before it can rest, and for what.

    `wake` is called when there is more.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        #: Their group may have to be made.
        self.make: Marks = {}
        #: Their group is gone.
        self.restore: Marks = {}
        #: They may hold entries for us that we do not know of.
        self.adopt: Marks = {}
        #: They may hold something that was delivered before.
        self.claim: Marks = {}
        #: They may hold something new.
        self.read: Marks = {}
        #: They held nothing new, and have to be seen off to their rest.
        self.rest: Marks = {}
        #: They are being read already, by a read that follows the wait for them.
        self.followed: set[Source] = set()
        #: It had something new last, so it is likely to have something next.
        self.expected: Source | None = None

    def __bool__(self) -> bool:
        return self.readable or self.more_than_reading

    @property
    def readable(self) -> bool:
        """Whether there are new messages to look for."""
        return any(self.free(self.read))

    @property
    def more_than_reading(self) -> bool:
        """Whether there is anything else than new messages to look for."""
        return bool(self.rest or self.claim or self.make or self.restore) or any(self.free(self.adopt))

    def free(self, marks: Marks) -> Iterator[Source]:
        """Yield those that no read follows: what such a one brings may be on its way, and comes by itself."""
        return (source for source in marks if source not in self.followed)

    def mark(self, marks: Marks, sources: Iterable[Source]) -> None:
        """Note sources in one of the sets, and wake the handle."""
        marks.update(dict.fromkeys(sources))
        self._wake()

    def remove(self, source: Source) -> None:
        """Forget a source."""
        for marks in (self.make, self.restore, self.adopt, self.claim, self.read, self.rest):
            marks.pop(source, None)
        if self.expected is source:
            self.expected = None
