"""A place in a consumer's pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from abe_router.backend import Delivery


class Worker:
    """What runs in one place of the pool, until when, and who cancelled it.

    The watchdog cancels it when its time is up, its crew when it is to end, and anything else that does is
    the handler's own doing.
    """

    __slots__ = ("cancelled", "deadline", "deliveries", "task", "timed_out")

    def __init__(self) -> None:
        self.deliveries: Sequence[Delivery] = ()
        self.deadline = 0.0
        #: Whether its time was up, and whether it was told to end.
        self.timed_out = self.cancelled = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, deliveries: Sequence[Delivery], deadline: float) -> None:
        """Note what is being handled, and until when by the loop's clock it may be."""
        self.deliveries, self.deadline, self.timed_out = deliveries, deadline, False

    def end(self) -> None:
        """Note that it is not being handled any more."""
        self.deliveries = ()
        if not self.cancelled and self.task is not None:
            # What is left over would pass for another's cancellation next time. A handler that swallowed the
            # watchdog's, and returned, did its work.
            while self.task.cancelling():
                self.task.uncancel()

    def expire(self, now: float) -> None:
        """Cancel the handler when its time, by the loop's clock, is up."""
        if self.deliveries and now >= self.deadline and not self.timed_out and self.task:
            self.timed_out = True
            self.task.cancel()

    def cancel(self) -> None:
        """Have it end where it is, and for good."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()
