"""Messages that may have ended a process, and the rule that a process holds at most one of them at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from abe_router.backend import Delivery
from abe_router.backoff import wait_for_event

#: How long a wait for a turn lasts before its caller looks whether it is to stop, in seconds.
_LOOK_AGAIN = 0.1


def is_suspect(delivery: Delivery) -> bool:
    """Say whether it was handed out before and never settled: what held it then may have died of it.

    Each recorded failure explains one earlier delivery.
    """
    return delivery.deliveries > delivery.message.attempt


class SuspectGate:
    """Lets one consumer of a process at a time hold a suspect; the consumers of a process share it.

    Were several suspects held at once, each death of the process would count against all of them, and one
    message that kills it would make dead letters of the others. So a consumer probes: it fetches one
    delivery. A suspect that it gets while another consumer holds one is handed back, uncounted, before it
    waits for its turn. The consumer that holds a suspect starts it once no other consumer probes.
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
