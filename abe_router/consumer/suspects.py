"""Messages that may have ended a process, and the rules for how many of them a process holds at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

from abe_router.backend import Delivery
from abe_router.backoff import wait_for_event

#: How many deliveries a suspect keeps for runs without another suspect.
RUNS_ALONE = 2
#: How long a wait for a turn lasts before its caller looks whether it is to stop, in seconds.
_LOOK_AGAIN = 0.1


def is_suspect(delivery: Delivery) -> bool:
    """Say whether it was handed out before and never settled: what held it then may have died of it.

    Each recorded failure explains one earlier delivery.
    """
    return delivery.deliveries > delivery.message.attempt


def suspects_of(deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Return the suspects among deliveries."""
    # Nearly all are delivered for the first time, and `attempt` is at least 1.
    return [each for each in deliveries if each.deliveries > 1 and is_suspect(each)]


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
    """Lets one consumer of a process at a time hold suspects; the consumers of a process share it.

    It holds one suspect that runs alone, or a group; see `runs_alone`. Were more held at once, one message
    that kills the process would make dead letters of the others. So a consumer probes: it fetches one
    delivery, or as many as a group after it had a group. Suspects that it gets while another consumer holds
    some are handed back, uncounted, before it waits for its turn. The consumer that holds suspects starts
    them once no other consumer probes.
    """

    def __init__(self) -> None:
        self._holder: object = None
        self._probing = 0
        self._changed = asyncio.Event()

    @property
    def is_free(self) -> bool:
        """Whether no consumer holds a suspect."""
        return self._holder is None

    @property
    def is_probed(self) -> bool:
        """Whether a consumer probes."""
        return self._probing > 0

    @contextmanager
    def probe(self) -> Iterator[None]:
        """Fetch, and hand back if need be, within this."""
        self._probing += 1
        try:
            yield
        finally:
            self._probing -= 1
            self._changed.set()

    def acquire(self, holder: object) -> bool:
        """Let `holder` hold a suspect, unless another one does; say whether it may."""
        if self._holder is None:
            self._holder = holder
        return self._holder is holder

    def release(self, holder: object) -> None:
        """Note that `holder` holds no suspect any more. Idempotent."""
        if self._holder is holder:
            self._holder = None
            self._changed.set()

    async def wait(self) -> None:
        """Wait for a change, for a short time at most."""
        self._changed.clear()
        await wait_for_event(self._changed, _LOOK_AGAIN)
