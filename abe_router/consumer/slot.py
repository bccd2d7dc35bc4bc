"""One slot of the worker pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import inf

from abe_router.backend import Delivery
from abe_router.observe import log_context

_set_logged = log_context.deliveries.set


class Slot:
    """What a slot of the worker pool runs, until when it may run, and what cancelled its task.

    The pool cancels it when the time is up or the consumer stops. Any other cancellation is the handler's
    own doing. The pool gives it its task.
    """

    __slots__ = ("_deadline", "_thread_deadline", "cancelled", "deliveries", "task", "timed_out")

    def __init__(self) -> None:
        #: What it runs; nothing while it is idle.
        self.deliveries: Sequence[Delivery] = ()
        self._deadline = 0.0
        self._thread_deadline: list[float] | None = None
        #: Whether the pool cancelled it because the time was up, or for good.
        self.timed_out = self.cancelled = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, deliveries: Sequence[Delivery], deadline: float) -> None:
        """Note what is handled from now on, and until when it may be, by the loop's clock.

        It is called in the task of the slot, whose log lines are about these deliveries from now on.
        """
        _set_logged(deliveries)
        self.deliveries, self._deadline = deliveries, deadline
        self._thread_deadline, self.timed_out = None, False

    @property
    def deadline(self) -> float:
        """Until when its handler may run, by the loop's clock; infinity while it waits for a thread."""
        return self._deadline if self._thread_deadline is None else self._thread_deadline[0]

    def wait_for_thread(self) -> list[float]:
        """Let the handler wait for a thread; return the list in which that thread sets the deadline.

        Each call has its own list, so that a thread that comes late cannot set the deadline of the next.
        """
        self._thread_deadline = [inf]
        return self._thread_deadline

    @property
    def is_cancelling(self) -> Callable[[], int]:
        """Return whether there is a request to cancel the task, which is the current one."""
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling

    def end(self) -> None:
        """Note that it is handled no longer.

        Without a request to cancel its task, it is enough to set `deliveries`.
        """
        self.deliveries = ()
        if not self.cancelled and self.task is not None:
            # A request to cancel that is left over would look like another cancellation next time. A handler
            # that swallowed the one of its timeout, and returned, did its work.
            while self.task.cancelling():
                self.task.uncancel()

    def expire(self, now: float) -> None:
        """Cancel the handler if its time is up."""
        if self.deliveries and now >= self.deadline and not self.timed_out and self.task is not None:
            self.timed_out = True
            self.task.cancel()

    @property
    def is_current(self) -> bool:
        """Whether its task is the one that runs now."""
        try:
            return asyncio.current_task() is self.task
        except RuntimeError:  # no loop runs
            return False

    def cancel(self) -> Sequence[Delivery]:
        """Cancel the slot for good; return what it was running, or nothing if it was cancelled before."""
        if self.cancelled or self.task is None:
            return ()
        self.cancelled = True
        self.task.cancel()
        return self.deliveries
