"""A handle on a group of the memory backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from abe_router.backend import Acked, Delivery, Outcome, Subscription
from abe_router.backends.memory.group import Entry, Group, set_off
from abe_router.messages.message import Message


class MemorySubscription(Subscription):
    """A handle on a group; it is open as long as it is among `handles`.

    If the group is dropped meanwhile, the next fetch makes it anew, to begin at `start`.
    """

    def __init__(
        self,
        pattern: str,
        group: str,
        entries: Group,
        lease: float,
        handles: set[MemorySubscription],
        emit: Callable[[Sequence[Message], float], None],
        start: float = 0.0,
    ) -> None:
        self.pattern, self.group = pattern, group
        self._entries, self._lease, self._handles, self._emit = entries, lease, handles, emit
        self._start, self._interrupted = start, False
        self._waiter: asyncio.Future[None] | None = None
        handles.add(self)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        # Otherwise a consumer that always finds something would never let anyone else run.
        await asyncio.sleep(0)
        while self in self._handles:
            entries = self._living()
            taken = entries.take(limit, self, self._lease)
            left = deadline - loop.time()
            if taken or self._interrupted or left <= 0:
                self._interrupted = False
                return taken
            self._waiter = loop.create_future()
            await entries.wait(self._waiter, left)
        return []

    def interrupt(self) -> None:
        self._interrupted = True
        if self._waiter:
            set_off(self._waiter)

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        refused = []
        for delivery, outcome in settlements:
            if entry := self._held(delivery):
                self._entries.settle(entry, outcome)
                if isinstance(outcome, Acked) and outcome.outputs:
                    self._emit(outcome.outputs, outcome.window)
            else:
                refused.append(delivery)
        return refused

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        refused = []
        for delivery in deliveries:
            if entry := self._held(delivery):
                self._entries.renew(entry, self._lease)
            else:
                refused.append(delivery)
        return refused

    async def close(self) -> None:
        self._handles.discard(self)
        self.interrupt()

    def _living(self) -> Group:
        """Return the group, made anew if it was dropped."""
        if self._entries.anew:
            self._entries = self._entries.anew(self._start)
        return self._entries

    def _held(self, delivery: Delivery) -> Entry | None:
        """Return the entry, if it was handed to us and neither settled nor handed out since."""
        entry: Entry
        entry, claim = delivery.receipt
        return entry if entry.claim == claim and entry.holder is self else None
