"""A place in a consumer's pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from abe_router.backend import Delivery


class Worker:
    """What runs in one place of the pool, until when, and whether its time ran out."""

    __slots__ = ("deadline", "deliveries", "task", "timed_out")

    def __init__(self) -> None:
        self.deliveries: Sequence[Delivery] = ()
        self.deadline = 0.0
        self.timed_out = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, deliveries: Sequence[Delivery], deadline: float) -> None:
        """Note what is being handled, and until when by the loop's clock it may be."""
        self.deliveries, self.deadline, self.timed_out = deliveries, deadline, False

    def end(self) -> None:
        """Note that it is not being handled any more."""
        self.deliveries = ()
        if self.timed_out and self.task is not None:
            self.task.uncancel()  # the handler swallowed the cancellation and returned: it did its work

    def expire(self, now: float) -> None:
        """Cancel the handler when its time, by the loop's clock, is up."""
        if self.deliveries and now >= self.deadline and not self.timed_out and self.task:
            self.timed_out = True
            self.task.cancel()

    def has_expired(self) -> bool:
        """Say whether the handler was cancelled because its time was up, and for nothing else.

        Ask once, of a handler that ended cancelled. The watchdog cancelled the task once, so one
        cancellation is taken back; any more came from a stop.
        """
        if not self.timed_out or self.task is None:
            return False
        self.timed_out = False
        return self.task.uncancel() == 0
