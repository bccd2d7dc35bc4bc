"""What one group has of each message: ready, leased, delayed or dead."""

from __future__ import annotations

import asyncio
import heapq
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, dropwhile, islice

import msgspec

from abe_router.backend import (
    Acked,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    Outcome,
    Subscription,
    SubscriptionStatus,
)
from abe_router.backends.memory.log import Kept, Log, with_attempt

Clock = Callable[[], float]

#: How often to look, in seconds, whether those without the place have anything in hand yet.
LOOK = 0.2

_NUMBER = re.compile(r"[0-9]{1,18}")


class Entry:
    """A message within one group.

    `claim` rises at each hand-out and each settling, so of all receipts the last one fits, and it fits once.
    `due` is when the next attempt is, after one that failed.
    """

    __slots__ = ("claim", "deliveries", "due", "failed_at", "holder", "kept", "lease_until", "message", "seq")

    def __init__(self, kept: Kept) -> None:
        self.kept, self.seq, self.message = kept, kept.seq, kept.message
        self.claim = self.deliveries = 0
        self.failed_at: float | None = None
        self.holder: Subscription | None = None
        self.lease_until = self.due = 0.0


class Group:
    """The entries of one group, each in one place, and the handles that wait for some."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._ready: deque[Entry] = deque()  # in the order they came
        self._returned: dict[int, Entry] = {}  # ready as well, but handed out before: these go first
        self._returned_order: list[int] = []  # heap of their numbers, and of some that have left again
        self._leased: dict[int, Entry] = {}
        self._delayed: list[tuple[float, int, Entry]] = []
        self._dead: dict[str, tuple[DeadLetter, Entry]] = {}
        self._letters = count(1)
        self._look_at = float("inf")  # no lease runs out before this time
        #: Who has the place, and until when.
        self.place: tuple[Subscription | None, float] = (None, 0.0)
        #: Makes the group anew, from a time on, once it was dropped.
        self.anew: Callable[[float], Group] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, kept: Kept) -> None:
        """Take in a message; `wake` follows when all are in."""
        kept.unsettled += 1
        self._ready.append(Entry(kept))

    async def wait(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wait until there may be something to take, at most for `seconds`."""
        due = min(self._look_at, self._delayed[0][0]) if self._delayed else self._look_at
        timer = waiter.get_loop().call_later(min(seconds, due - self._clock()), set_off, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            timer.cancel()

    def wake(self) -> None:
        """Let those who wait look again: there is more, or something falls due sooner than they knew."""
        for waiter in self._waiters:
            set_off(waiter)

    def take(self, limit: int, holder: Subscription, lease: float) -> list[Delivery]:
        """Lease up to `limit` entries to the holder, for `lease` seconds."""
        self._recover()
        ready, returned, leased = self._ready, self._returned, self._leased
        until = self._clock() + lease
        taken: list[Delivery] = []
        while len(taken) < limit:
            if returned:
                entry = returned.pop(heapq.heappop(self._returned_order), None)
                if entry is None:
                    continue
            elif ready:
                entry = ready.popleft()
            else:
                break
            entry.claim += 1
            entry.deliveries += 1
            entry.holder, entry.lease_until = holder, until
            leased[entry.seq] = entry
            taken.append(Delivery(entry.message, entry.deliveries, (entry, entry.claim), entry.failed_at))
        if taken:
            self._expect(until)
        return taken

    def occupy(self, holder: Subscription, lease: float) -> float:
        """Give the place to the holder for `lease` seconds; return 0, or in how many to ask again."""
        now, (before, until) = self._clock(), self.place
        if before is holder:
            if now >= self._look_at:  # nobody took what it has, so it has it still
                for entry in self._leased.values():
                    if entry.holder is holder:
                        entry.lease_until = now + lease
            self._recover()
        else:
            self._recover()
            if until > now:
                return until - now
            if any(entry.holder is not before for entry in self._leased.values()):
                return LOOK
            leased, self._leased = self._leased, {}
            for entry in (*leased.values(), *self._returned.values()):
                entry.claim += 1  # whose lease ran out would have it still
            for entry in leased.values():
                self._put_back(entry)
        self.place = holder, now + lease
        return 0.0

    def vacate(self, holder: Subscription) -> None:
        """Let others have the place, if the holder has it."""
        if self.place[0] is holder:
            self.place = holder, 0.0
            self.wake()

    def take_in_order(self, limit: int, holder: Subscription, lease: float) -> list[Delivery]:
        """Lease entries as `take` does, but those that wait for another attempt as well."""
        now = self._clock()
        if self._delayed:
            for _, _, entry in self._delayed:
                self._return(entry)
            self._delayed.clear()
        taken = self.take(limit, holder, lease)
        return [
            msgspec.structs.replace(each, wait=due - now) if (due := each.receipt[0].due) > now else each
            for each in taken
        ]

    def postpone(self, entry: Entry, seconds: float, lease: float) -> Delivery:
        """Count a failure of an entry that its holder keeps for another attempt."""
        self.renew(entry, lease)
        self._failed(entry, seconds)
        entry.claim += 1
        entry.deliveries += 1
        return Delivery(entry.message, entry.deliveries, (entry, entry.claim), entry.failed_at, seconds)

    def settle(self, entry: Entry, outcome: Outcome) -> None:
        """Carry out the outcome of an entry that somebody holds."""
        entry.claim += 1
        if self._leased.pop(entry.seq, None) is None:
            del self._returned[entry.seq]
        if isinstance(outcome, Acked):
            self._log.settled(entry.kept)
        elif isinstance(outcome, Delayed):
            self._failed(entry, outcome.seconds)
            heapq.heappush(self._delayed, (entry.due, entry.seq, entry))
            self.wake()
        elif isinstance(outcome, Dead):
            number = str(next(self._letters))
            self._dead[number] = (msgspec.structs.replace(outcome.dead_letter, id=number), entry)
            self._log.settled(entry.kept)
        else:
            entry.deliveries -= 1
            self._put_back(entry)
            self.wake()

    def renew(self, entry: Entry, lease: float) -> None:
        """Start the lease of an entry anew, also when it ran out and nobody took the entry."""
        entry.lease_until = self._clock() + lease
        if self._returned.pop(entry.seq, None):
            self._leased[entry.seq] = entry
        self._expect(entry.lease_until)

    def counts(self, pattern: str, name: str) -> SubscriptionStatus:
        """Return how many entries are in each place."""
        self._recover()
        ready, now = len(self._ready) + len(self._returned), self._clock()
        waiting = sum(entry.due > now for entry in self._leased.values())
        in_flight, delayed = len(self._leased) - waiting, len(self._delayed) + waiting
        return SubscriptionStatus(pattern, name, ready, in_flight, delayed, len(self._dead))

    def letters(self, limit: int, after: str) -> list[DeadLetter]:
        """Return up to `limit` dead letters that came after the one of that id."""
        # By number and not by place, for that letter may be gone.
        seen = int(after) if _NUMBER.fullmatch(after) else 0
        later = dropwhile(lambda item: int(item[0]) <= seen, self._dead.items())
        return [letter for _, (letter, _) in islice(later, limit)]

    def bury(self, ids: Sequence[str]) -> list[Kept]:
        """Remove dead letters; return the messages of those that were there."""
        return [self._dead.pop(id)[1].kept for id in ids if id in self._dead]

    def forget(self, anew: Callable[[float], Group]) -> None:
        """Let go of everything; no receipt fits any more, and who still fetches has the group made `anew`."""
        delayed = (entry for _, _, entry in self._delayed)
        for entry in (*self._ready, *self._returned.values(), *self._leased.values(), *delayed):
            entry.claim += 1
            self._log.settled(entry.kept)
        for place in (self._ready, self._returned, self._leased, self._delayed, self._dead):
            place.clear()
        self.anew = anew
        self.wake()

    def _recover(self) -> None:
        """Make ready what is due, and what was leased by someone who let the lease run out."""
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._return(heapq.heappop(self._delayed)[2])
        if now >= self._look_at:
            for entry in [entry for entry in self._leased.values() if entry.lease_until <= now]:
                del self._leased[entry.seq]
                self._return(entry)
            self._look_at = min((e.lease_until for e in self._leased.values()), default=float("inf"))

    def _failed(self, entry: Entry, seconds: float) -> None:
        if entry.failed_at is None:
            entry.failed_at = time.time()
        entry.message = with_attempt(entry.message, entry.message.attempt + 1)
        entry.due = self._clock() + seconds

    def _put_back(self, entry: Entry) -> None:
        """Let others have what nobody tried; what was not due yet is so no sooner."""
        if entry.due > self._clock():
            heapq.heappush(self._delayed, (entry.due, entry.seq, entry))
        else:
            self._return(entry)

    def _return(self, entry: Entry) -> None:
        if not self._returned:
            self._returned_order.clear()
        self._returned[entry.seq] = entry
        heapq.heappush(self._returned_order, entry.seq)

    def _expect(self, end: float) -> None:
        """Note when a lease ends."""
        if end < self._look_at:
            self._look_at = end
            self.wake()


def set_off(waiter: asyncio.Future[None]) -> None:
    """Wake whoever waits for it, unless that was done before."""
    if not waiter.done():
        waiter.set_result(None)
