"""The deliveries that a consumer holds: fetched, and not yet settled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from math import inf

from abe_router.backend import Delivery, Outcome
from abe_router.consumer.ordering_keys import OrderingKeys
from abe_router.consumer.slot import Slot

Settlement = tuple[Delivery, Outcome]

# Each delivery in flight is in one state:
#
#   waiting   its ordering key is not free, or its attempt is not due (ordered routes alone)
#   withheld  the rate of the route does not permit it yet (routes with a rate alone)
#   buffered  the next free slot takes it
#   running   a slot tries it
#   outcome   it was tried, or is handed back, and its outcome is not sent
#   settling  its outcome is under way to the backend
#
# Transitions, and the part that makes each:
#
#   fetched  -> waiting | withheld | buffered    ordering, fetcher
#   waiting  -> withheld | buffered              fetcher
#   withheld -> buffered                         fetcher
#   buffered -> running                          worker pool
#   running  -> outcome                          worker pool
#   buffered | withheld -> gone                  lease keeper, when the lease was lost
#   buffered | withheld | running -> outcome     worker pool, when the consumer stops
#   outcome  -> settling -> gone                 settler
#
# Invariants: no delivery is in two states; whatever is in flight is leased, and `leases.began_at` is no later
# than the time at which the oldest of these leases began.


class LeaseClock:
    """When the oldest lease of what is in flight began; times are those of the loop, in seconds.

    Leases are renewed together, after a third of their length. After two thirds a lease may run out before
    a handler would be under way: the process stood still, or its loop was blocked.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._since_renewal = inf  # the oldest of the leases that began since `start_renewal`
        self.began_at = self.overdue_at = inf

    def reset(self) -> None:
        """Note that there is no lease."""
        self.began_at = self.overdue_at = inf

    def track(self, leased_at: float) -> None:
        """Note that more leases began at `leased_at` or later."""
        if leased_at < self._since_renewal:
            self._since_renewal = leased_at
        if leased_at < self.began_at:
            self._begin(leased_at)

    def suspect(self) -> None:
        """Demand a renewal before anything else is started."""
        self._begin(-inf)

    def is_due(self, now: float) -> bool:
        """Say whether it is time to renew."""
        return now - self.began_at >= self._lease / 3

    def start_renewal(self) -> None:
        """Note that a renewal of all leases begins; those that begin from now on are not part of it."""
        self._since_renewal = inf

    def finish_renewal(self, at: float) -> None:
        """Note that the leases of the renewal began anew at `at` or later."""
        self._begin(min(at, self._since_renewal))

    def _begin(self, at: float) -> None:
        self.began_at = at
        self.overdue_at = at + self._lease * 2 / 3


class InFlight:
    """The one owner of what a consumer holds; the parts of the consumer share it.

    `lease` is the length of a lease in seconds. `max_unacked` is the number of unsettled outcomes from which
    on no handler starts. `ordering` holds what waits for its ordering key, None for a route without order.
    `on_busy` is called when the first delivery comes in flight.
    """

    def __init__(
        self,
        lease: float,
        max_unacked: int,
        ordering: OrderingKeys | None = None,
        *,
        on_busy: Callable[[], None] | None = None,
    ) -> None:
        self.ordering, self._on_busy = ordering, on_busy
        self.leases = LeaseClock(lease)
        self.withheld: list[Delivery] = []
        self.buffer: deque[Delivery] = deque()
        #: The low-water mark of the buffer: a slot reports capacity when no more than these are in it.
        self.low_water = 0
        #: The slots of the pool; each has what it runs.
        self.slots: list[Slot] = []
        #: The same list for good, because every message is added to it.
        self.outcomes: list[Settlement] = []
        self.settling: Sequence[Settlement] = ()
        self._max_unacked = max_unacked
        #: With as many `outcomes` as these no handler starts.
        self.most_outcomes = max_unacked
        #: Set when the fetcher should look again whether there is room for more.
        self.capacity = asyncio.Event()
        #: Set when outcomes were settled, for the slots that wait for it.
        self.settled = asyncio.Event()
        #: Set as soon as anything is in flight; cleared some time after nothing is.
        self.busy = asyncio.Event()

    def __len__(self) -> int:
        return self.waiting + len(self.withheld) + len(self.buffer) + self.running_count + self.unsettled

    @property
    def waiting(self) -> int:
        """How many wait for their ordering key."""
        return 0 if self.ordering is None else len(self.ordering) - len(self.ordering.taken)

    @property
    def running_count(self) -> int:
        """How many deliveries handlers run with."""
        return sum(len(slot.deliveries) for slot in self.slots)

    @property
    def unsettled(self) -> int:
        """How many have an outcome that the backend has not carried out yet."""
        return len(self.outcomes) + len(self.settling)

    def deliveries(self) -> list[Delivery]:
        """Return everything in flight."""
        return [
            *(() if self.ordering is None else self.ordering.waiting()),
            *self.withheld,
            *self.buffer,
            *(delivery for slot in self.slots for delivery in slot.deliveries),
            *(delivery for delivery, _ in self.settling),
            *(delivery for delivery, _ in self.outcomes),
        ]

    def renewable(self, now: float, *, is_hanging: bool) -> list[Delivery]:
        """Return what a thread renews while the event loop is blocked; `now` is the loop's time.

        That is all but the handlers whose time is up. What does not run stays here too, since it cannot be
        handed back without the event loop. When the event loop hangs, it is only what runs. Raise
        RuntimeError when the event loop continues meanwhile.
        """
        expired = {
            delivery
            for slot in self.slots
            if slot.deadline <= now or (is_hanging and slot.deadline == inf)
            for delivery in slot.deliveries
        }
        held = [each for slot in self.slots for each in slot.deliveries] if is_hanging else self.deliveries()
        return [delivery for delivery in held if delivery not in expired]

    def holds(self, deliveries: Collection[Delivery]) -> bool:
        """Say whether any of the deliveries is in flight."""
        return any(each in deliveries for each in self.deliveries())

    def has_unended(self, deliveries: Collection[Delivery]) -> bool:
        """Say whether any of the deliveries is not started, or running."""
        running = (each for slot in self.slots for each in slot.deliveries)
        return any(each in deliveries for each in (*self.withheld, *self.buffer, *running))

    def track(self, leased_at: float) -> None:
        """Note that what comes in flight now was leased at `leased_at` or later.

        That is the time at which it was asked for. The process may have stood still, for longer than the
        lease, before the answer came. The caller puts it among what is in flight in the same step.
        """
        if not self.busy.is_set():
            self.leases.reset()
            self.busy.set()
            if self._on_busy is not None:
                self._on_busy()
        self.leases.track(leased_at)

    def take_unstarted(self) -> list[Delivery]:
        """Remove and return what is withheld or buffered."""
        unstarted = [*self.buffer, *self.withheld]
        self.buffer.clear()
        self.withheld.clear()
        return unstarted

    def drop(self, lost: Collection[Delivery]) -> list[Delivery]:
        """Remove and return what is lost and was not started."""
        unstarted = [*self.buffer, *self.withheld]
        kept = [delivery for delivery in self.buffer if delivery not in lost]
        self.buffer.clear()
        self.buffer.extend(kept)
        self.withheld[:] = [delivery for delivery in self.withheld if delivery not in lost]
        self.capacity.set()
        return [delivery for delivery in unstarted if delivery in lost]

    def start_settling(self) -> Sequence[Settlement]:
        """Take all outcomes as those that are under way to the backend, and return them."""
        self.settling = self.outcomes[:]
        self.outcomes.clear()
        self.most_outcomes = self._max_unacked - len(self.settling)
        return self.settling

    def finish_settling(self) -> None:
        """Note that nothing is under way to the backend any more."""
        self.settling, self.most_outcomes = (), self._max_unacked
        self.capacity.set()
        self.settled.set()

    def break_order(self) -> None:
        """Start no more of an ordered route: a delivery was lost, and what follows it may be elsewhere."""
        if self.ordering is not None:
            self.ordering.break_order()
            self.leases.suspect()

    def clear(self) -> None:
        """Forget everything; the leases of what is unsettled run out."""
        self.take_unstarted()
        self.slots.clear()
        self.outcomes.clear()
        self.settling, self.most_outcomes = (), self._max_unacked
        self.leases.reset()
        if self.ordering is not None:
            self.ordering.clear()
