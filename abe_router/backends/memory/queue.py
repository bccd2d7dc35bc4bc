"""The queue of one subscription: what it has of each message.

An entry is in one state at a time:

    ready      it waits to be handed out; it never was (`_ready`), or it came back (`_returned`)
    in flight  it is handed out, and leased until a time (`_leased`)
    delayed    its attempt failed, and the next one is due at a time (`_delayed`)
    dead       it ended as a dead letter (`_dead`)

Transitions:

    ready -> in flight             take
    in flight -> ready             release; the end of the lease
    in flight -> delayed -> ready  delay; the next attempt falls due
    in flight -> dead -> ready     dead-letter; replay
    in flight, dead -> gone        ack; purge

Invariants: `_ready` and `_returned` are in the order of acceptance, and `_returned` goes first. `claim` rises
at each hand-out and each settlement, so only the receipt of the last hand-out fits, and it fits once. An
entry whose lease ended is moved when the queue is next used; until it is handed out again, its holder may
settle it.
"""

from __future__ import annotations

import asyncio
import heapq
import re
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, islice

import msgspec

from abe_router.backend import (
    Acked,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    Outcome,
    Peeked,
    PeekState,
    Subscription,
    SubscriptionStatus,
)
from abe_router.backends.memory.log import Clock, LoggedMessage, MessageLog, with_attempt

#: How often a handle that is not the owner checks whether other handles still hold leases, in seconds.
CHECK_INTERVAL = 0.2

_NUMBER = re.compile(r"[0-9]{1,18}")


class QueueEntry:
    """A message within one queue; `due` is when its next attempt is, after one that failed."""

    __slots__ = (
        "claim",
        "deliveries",
        "due",
        "failed_at",
        "former",
        "holder",
        "lease_until",
        "logged",
        "message",
        "replays",
        "seq",
    )

    def __init__(self, logged: LoggedMessage) -> None:
        self.logged, self.seq, self.message = logged, logged.seq, logged.message
        self.claim = self.deliveries = 0
        self.failed_at: float | None = None
        self.replays, self.former = 0, ""
        self.holder: Subscription | None = None
        self.lease_until = self.due = 0.0


class SubscriptionQueue:
    """The entries of one subscription, and the waiters of its handles."""

    def __init__(self, log: MessageLog, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._ready: deque[QueueEntry] = deque()
        self._returned: dict[int, QueueEntry] = {}
        self._returned_order: list[int] = []  # heap of their numbers, and of some that have left again
        self._leased: dict[int, QueueEntry] = {}
        self._delayed: list[tuple[float, int, QueueEntry]] = []  # heap by due time
        self._dead: dict[str, tuple[DeadLetter, QueueEntry]] = {}
        self._dead_letter_ids = count(1)
        self._first_end = float("inf")  # no lease ends before this time
        self._last_oldest = (0, 0.0)  # number and acceptance time of the entry that was the oldest last
        self._last_due = (0.0, 0.0)
        #: The exclusive handle that owns the queue, and until when.
        self.owner: tuple[Subscription | None, float] = (None, 0.0)
        #: Makes the queue again, from a start time on, once its subscription was dropped.
        self.make_again: Callable[[float], SubscriptionQueue] | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def add(self, logged: LoggedMessage) -> None:
        """Add a message that was accepted last; call `wake_all` when all are added."""
        logged.unsettled += 1
        self._ready.append(QueueEntry(logged))

    async def wait(self, waiter: asyncio.Future[None], seconds: float) -> None:
        """Wait until there may be something to take, at most for `seconds`."""
        due = min(self._first_end, self._delayed[0][0]) if self._delayed else self._first_end
        timer = waiter.get_loop().call_later(min(seconds, due - self._clock()), wake, waiter)
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
            timer.cancel()

    def wake_all(self) -> None:
        """Let every waiter look again: there is more, or something falls due earlier than it knew."""
        for waiter in self._waiters:
            wake(waiter)

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
            receipt = entry, entry.claim
            taken.append(
                Delivery(entry.message, entry.deliveries, receipt, entry.failed_at, 0.0, "", entry.replays)
            )
        if taken:
            self._lease_ends(until)
        return taken

    def acquire(self, holder: Subscription, lease: float) -> float:
        """Make the holder the owner for `lease` seconds; return 0, or after how many to try again."""
        now, (before, until) = self._clock(), self.owner
        if before is holder:
            if now >= self._first_end:  # no other handle took its entries, so it still holds them
                for entry in self._leased.values():
                    if entry.holder is holder:
                        entry.lease_until = now + lease
            self._recover()
        else:
            self._recover()
            if until > now:
                return until - now
            if any(entry.holder is not before for entry in self._leased.values()):
                return CHECK_INTERVAL
            leased, self._leased = self._leased, {}
            for entry in (*leased.values(), *self._returned.values()):
                entry.claim += 1  # the holder whose lease ended could settle it otherwise
            for entry in leased.values():
                self._put_back(entry)
        self.owner = holder, now + lease
        return 0.0

    def release(self, holder: Subscription) -> None:
        """End the ownership of the holder, if it is the owner."""
        if self.owner[0] is holder:
            self.owner = holder, 0.0
            self.wake_all()

    def take_in_order(self, limit: int, holder: Subscription, lease: float) -> list[Delivery]:
        """Lease entries as `take` does, also those whose next attempt is not due yet."""
        now = self._clock()
        delayed, self._delayed = self._delayed, []
        for _, _, entry in delayed:
            self._return(entry)
        taken = self.take(limit, holder, lease)
        for _, seq, entry in delayed:
            if entry.due > now and seq in self._returned:
                del self._returned[seq]
                heapq.heappush(self._delayed, (entry.due, seq, entry))
        return [
            msgspec.structs.replace(each, wait=due - now) if (due := each.receipt[0].due) > now else each
            for each in taken
        ]

    def postpone(self, delivery: Delivery, seconds: float, lease: float) -> Delivery:
        """Note a failure of a delivery whose holder keeps it for the next attempt."""
        entry: QueueEntry = delivery.receipt[0]
        self.renew(entry, lease)
        failed_at = self._fail(entry, seconds)
        entry.claim += 1
        entry.deliveries += 1
        return delivery.next_attempt(receipt=(entry, entry.claim), failed_at=failed_at, wait=seconds)

    def settle(self, entry: QueueEntry, outcome: Outcome) -> None:
        """Carry out the outcome of an entry that a handle holds."""
        entry.claim += 1
        if self._leased.pop(entry.seq, None) is None:
            del self._returned[entry.seq]
        if isinstance(outcome, Acked):
            self._log.settled(entry.logged)
        elif isinstance(outcome, Delayed):
            self._fail(entry, outcome.seconds)
            heapq.heappush(self._delayed, (entry.due, entry.seq, entry))
            self.wake_all()
        elif isinstance(outcome, Dead):
            id = str(next(self._dead_letter_ids))
            dead_letter = msgspec.structs.replace(
                outcome.dead_letter, id=id, replays=entry.replays, former=entry.former
            )
            self._dead[id] = (dead_letter, entry)
            self._log.settled(entry.logged)
        else:
            entry.deliveries -= 1
            self._put_back(entry)
            self.wake_all()

    def renew(self, entry: QueueEntry, lease: float) -> None:
        """Start the lease of an entry anew, also one that ended when no other handle took the entry."""
        entry.lease_until = self._clock() + lease
        if self._returned.pop(entry.seq, None):
            self._leased[entry.seq] = entry
        self._lease_ends(entry.lease_until)

    def prolong(self, entries: Sequence[QueueEntry], holder: Subscription, lease: float) -> None:
        """Let the leases of entries, and the ownership of the holder, end later; called in another thread.

        No entry changes its state, and each time is set in one step. So it is safe beside the event loop.
        """
        now = self._clock()
        owner, until = self.owner
        if owner is holder and until > now:
            self.owner = holder, now + lease
        for entry in entries:
            entry.lease_until = max(entry.lease_until, now + lease)

    def status(self, pattern: str, group: str) -> SubscriptionStatus:
        """Return how many entries are in each state, and since when the oldest one waits."""
        self._recover()
        now = self._clock()
        ready = len(self._ready) + len(self._returned)
        waiting = sum(entry.due > now for entry in self._leased.values())
        in_flight, delayed = len(self._leased) - waiting, len(self._delayed) + waiting
        ends = self._oldest_at(), self._next_due_at(now)
        return SubscriptionStatus(pattern, group, ready, in_flight, delayed, len(self._dead), *ends)

    def peek(self, limit: int, after: int) -> list[Peeked]:
        """Return up to `limit` unsettled entries whose number is greater than `after`, in order."""
        now, ready = self._clock(), self._ready
        first = bisect_right(ready, after, key=lambda entry: entry.seq)
        waiting = (ready[n] for n in range(first, min(first + limit, len(ready))))
        others = (entry for entry in self._handed_out() if entry.seq > after)
        page = heapq.nsmallest(limit, chain(waiting, others), key=lambda entry: entry.seq)
        return [Peeked(str(e.seq), e.message, self._state(e, now), e.deliveries) for e in page]

    def dead_letters(self, limit: int, after: str) -> list[DeadLetter]:
        """Return up to `limit` dead letters that came after the one with that id."""
        # Ids are numbers in ascending order, so the page is found without the ones before it, and also if
        # that dead letter is gone.
        if not self._dead:
            return []
        first, last = int(next(iter(self._dead))), int(next(reversed(self._dead)))
        numbers = range(max(first, (int(after) if _NUMBER.fullmatch(after) else 0) + 1), last + 1)
        found = (self._dead[id][0] for id in map(str, numbers) if id in self._dead)
        return list(islice(found, limit))

    def replay(self, ids: Sequence[str]) -> int:
        """Make dead letters ready again, as if they were never handed out; return how many."""
        removed = self._remove_dead(ids)
        for dead_letter, dead in removed:
            dead.logged.unsettled += 1
            entry = QueueEntry(dead.logged)
            entry.replays, entry.former = dead_letter.replays + 1, dead_letter.id
            self._return(entry)
        self.wake_all()
        return len(removed)

    def purge(self, ids: Sequence[str]) -> int:
        """Delete dead letters; return how many."""
        return len(self._remove_dead(ids))

    def clear(self, make_again: Callable[[float], SubscriptionQueue]) -> None:
        """Forget every entry, so that no receipt fits; a later fetch continues with `make_again`."""
        for entry in chain(self._ready, self._handed_out()):
            entry.claim += 1
            self._log.settled(entry.logged)
        for entries in (self._ready, self._returned, self._leased, self._delayed, self._dead):
            entries.clear()
        self.make_again = make_again
        self.wake_all()

    def _handed_out(self) -> Iterator[QueueEntry]:
        """Yield the unsettled entries that were handed out before, in any order."""
        delayed = (entry for _, _, entry in self._delayed)
        return chain(self._returned.values(), self._leased.values(), delayed)

    def _state(self, entry: QueueEntry, now: float) -> PeekState:
        """Return the state as it is now, also when the entry is not moved yet."""
        if entry.seq in self._leased and entry.lease_until > now:
            return "delayed" if entry.due > now else "in_flight"
        return "delayed" if entry.due > now and entry.seq not in self._leased else "ready"

    def _oldest_at(self) -> float | None:
        """Return when the first entry that is ready was accepted, None when none is."""
        order = self._returned_order
        while order and order[0] not in self._returned:
            heapq.heappop(order)
        first = [self._returned[order[0]]] if self._returned else []
        oldest = min((*first, *islice(self._ready, 1)), key=lambda entry: entry.seq, default=None)
        return None if oldest is None else self._accepted_at(oldest)

    def _accepted_at(self, entry: QueueEntry) -> float:
        """Return when a message was accepted, in seconds since the epoch; the same for repeated calls."""
        if self._last_oldest[0] != entry.seq:
            # Computed only here, so that appending does not read a second clock.
            self._last_oldest = entry.seq, time.time() - (self._clock() - entry.logged.since)
        return self._last_oldest[1]

    def _next_due_at(self, now: float) -> float | None:
        """Return when the first delayed entry is due; the same for repeated calls."""
        due = [entry.due for entry in self._leased.values() if entry.due > now]
        due += [entry.due for _, _, entry in self._delayed[:1]]  # a heap
        if not due:
            return None
        if self._last_due[0] != min(due):
            self._last_due = min(due), time.time() + min(due) - now
        return self._last_due[1]

    def _remove_dead(self, ids: Sequence[str]) -> list[tuple[DeadLetter, QueueEntry]]:
        return [self._dead.pop(id) for id in ids if id in self._dead]

    def _recover(self) -> None:
        """Make ready what is due, and what was leased until a time that has passed."""
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._return(heapq.heappop(self._delayed)[2])
        if now >= self._first_end:
            for entry in [entry for entry in self._leased.values() if entry.lease_until <= now]:
                del self._leased[entry.seq]
                self._return(entry)
            self._first_end = min((e.lease_until for e in self._leased.values()), default=float("inf"))

    def _fail(self, entry: QueueEntry, seconds: float) -> float:
        """Note a failed attempt, and that the next one is due in `seconds`; return the first failure."""
        if entry.failed_at is None:
            entry.failed_at = time.time()
        entry.message = with_attempt(entry.message, entry.message.attempt + 1)
        entry.due = self._clock() + seconds
        return entry.failed_at

    def _put_back(self, entry: QueueEntry) -> None:
        """Hand back an entry that was not tried; one whose attempt is not due stays delayed."""
        if entry.due > self._clock():
            heapq.heappush(self._delayed, (entry.due, entry.seq, entry))
        else:
            self._return(entry)

    def _return(self, entry: QueueEntry) -> None:
        if not self._returned:
            self._returned_order.clear()
        self._returned[entry.seq] = entry
        heapq.heappush(self._returned_order, entry.seq)

    def _lease_ends(self, end: float) -> None:
        """Note when a lease ends; wake the waiters if it is the first to end."""
        if end < self._first_end:
            self._first_end = end
            self.wake_all()


def wake(waiter: asyncio.Future[None]) -> None:
    """End the wait of a waiter, unless it has ended."""
    if not waiter.done():
        waiter.set_result(None)
