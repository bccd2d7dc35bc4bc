"""Messages that may have ended a process, and the rules for how many of them a process holds at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import takewhile

from abe_router.backend import Delivery
from abe_router.backoff import wait_for_event

#: How many deliveries a suspect keeps for runs without another suspect.
RUNS_ALONE = 2
#: How long what was started runs before another consumer fetches, in seconds, unless it ends before. Most of
#: what kills its process does so at once. A fetch may bring suspects, and a death before they are handed back
#: counts against them.
HEAD_START = 0.25
#: How long a wait for a turn lasts before its caller looks whether it is to stop, in seconds.
_LOOK_AGAIN = 0.1


def suspects_of(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Return those that were handed out before and never settled: what held them then may have died of them.

    Each recorded failure explains one earlier delivery.
    """
    # Nearly all are delivered for the first time, and `attempt` is at least 1.
    return [each for each in deliveries if each.deliveries > 1 and each.deliveries > each.message.attempt]


def runs_alone(delivery: Delivery, limit: int) -> bool:
    """Say whether it is a suspect beside which a process runs no other; `limit` is that of deliveries.

    A death of the process counts against all suspects that it holds. So a suspect of one death may run in a
    group, as long as the death of the group leaves it RUNS_ALONE deliveries. A suspect of several deaths runs
    alone: it shows by itself whether it kills, and no other message is counted with it.
    """
    unexplained = delivery.deliveries - delivery.message.attempt
    return unexplained > 1 or (unexplained == 1 and delivery.deliveries + RUNS_ALONE > limit)


def group_of(suspects: Sequence[Delivery], limit: int, size: int) -> Sequence[Delivery]:
    """Return the first suspects that may run together, at most `size`: those of a group, or one alone."""
    if not suspects or runs_alone(suspects[0], limit):
        return suspects[:1]
    return list(takewhile(lambda each: not runs_alone(each, limit), suspects[:size]))


class SuspectGate:
    """Says which consumers of a process may hold suspects; the consumers share it.

    Several may hold a group each, see `runs_alone`. One that holds a suspect that runs alone is the only one.
    Were more held beside it, one message that kills the process would make dead letters of the others.

    So a consumer probes: it fetches one delivery, or as many as a group after it had a group. Suspects that
    it may not hold are handed back, uncounted, before it waits. The first consumer that waits for a run alone
    is next: the others get no further group. What a consumer may hold it starts once no other fetches, and
    with a head start before one fetches again.
    """

    def __init__(self) -> None:
        self._holders: dict[object, bool] = {}  # and whether what it holds runs alone
        self._next: object = None
        self._fetches: dict[object, Callable[[], None]] = {}
        self._starting: dict[object, object] = {}  # by holder, a mark of its start
        self._changed = asyncio.Event()

    def admits(self, holder: object, *, alone: bool) -> bool:
        """Say whether `holder` may hold a suspect that runs alone, or a group."""
        others = [runs_alone for each, runs_alone in self._holders.items() if each is not holder]
        return self._next in (None, holder) and not (any(others) or (alone and others))

    def acquire(self, holder: object, *, alone: bool) -> bool:
        """Let `holder` hold a suspect that runs alone, or a group, if it may; say whether it may."""
        if self.admits(holder, alone=alone):
            self._holders[holder] = alone
            self._next = None
            return True
        if alone and self._next is None:
            self._next = holder
        return False

    def release(self, holder: object) -> None:
        """Note that `holder` holds no suspect any more, and waits for none. Idempotent."""
        self._holders.pop(holder, None)
        self._starting.pop(holder, None)
        if self._next is holder:
            self._next = None
        self._changed.set()

    @property
    def is_busy(self) -> bool:
        """Whether a consumer holds suspects, so that the others fetch in probes."""
        return bool(self._holders or self._starting)

    @asynccontextmanager
    async def probe(self, interrupt: Callable[[], None]) -> AsyncIterator[None]:
        """Fetch while no consumer starts a suspect; otherwise as `fetching`."""
        while self._starting:
            await self.wait()
        with self.fetching(interrupt):
            yield

    @contextmanager
    def fetching(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Fetch, and hand back suspects, within this; `interrupt` ends the fetch early."""
        fetch = object()
        self._fetches[fetch] = interrupt
        try:
            yield
        finally:
            del self._fetches[fetch]
            self._changed.set()

    async def end_fetches(self, holder: object, seconds: float) -> None:
        """Wait until no consumer fetches, at most `seconds`; interrupt the fetches that wait.

        `holder` starts its suspects then. No other fetches before these have their head start.
        """
        loop, start = asyncio.get_running_loop(), object()
        until = loop.time() + seconds
        self._starting[holder] = start
        try:
            while self._fetches and loop.time() < until:
                for interrupt in self._fetches.values():
                    interrupt()
                await self.wait()
        except BaseException:
            self._started(holder, start)
            raise
        loop.call_later(HEAD_START, self._started, holder, start)

    def _started(self, holder: object, start: object) -> None:
        if self._starting.get(holder) is start:
            del self._starting[holder]
            self._changed.set()

    async def wait(self) -> None:
        """Wait for a change, for a short time at most."""
        self._changed.clear()
        await wait_for_event(self._changed, _LOOK_AGAIN)
