"""What the worker is asked to do: operations on the file, and fetches that may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from abe_router.backend import Delivery
from abe_router.backends.sqlite import lease
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group

T = TypeVar("T")


class Operation(Generic[T]):
    """A function of the file, run within a transaction, and the future of its result.

    With `reads` it changes nothing. It may run more than once, after a rollback, and its result counts
    only when the transaction it ran in was committed.
    """

    def __init__(
        self, run: Callable[[Database], T], future: asyncio.Future[T], *, reads: bool = False
    ) -> None:
        self.run = run
        self.future = future
        self.reads = reads

    def resolve(self, result: T) -> None:
        """Give the result to whoever waits for it; called in the event loop."""
        if not self.future.done():
            self.future.set_result(result)

    def reject(self, error: Exception) -> None:
        """Give an error to whoever waits; called in the event loop."""
        if not self.future.done():
            self.future.set_exception(error)


class Fetch(Operation[Sequence[Delivery]]):
    """A claim that waits until there is something to claim, or for its deadline on the monotonic clock.

    `orphaned` gets the deliveries that were claimed when nobody waited for them any more.
    """

    def __init__(
        self,
        group: Group,
        limit: int,
        lease_seconds: float,
        deadline: float,
        future: asyncio.Future[Sequence[Delivery]],
        orphaned: Callable[[Sequence[Delivery]], Any],
    ) -> None:
        super().__init__(self._claim, future)
        self.group = group
        self.deadline = deadline
        #: The number of its subscription, 0 while unknown.
        self.sid = 0
        #: When it is worth another try without any news, on the monotonic clock.
        self.again = deadline
        self._limit = limit
        self._lease = lease_seconds
        self._orphaned = orphaned

    def is_worth_it(self, database: Database) -> bool:
        """Say whether a try would find anything, without writing."""
        return self._note(database, *lease.available(database, self.group))

    def resolve(self, result: Sequence[Delivery]) -> None:
        """Give the deliveries to whoever waits for them, or else hand them back."""
        if not self.future.done():
            self.future.set_result(result)
        elif result:
            self._orphaned(result)

    def falls_due(self, due: float) -> None:
        """Take note that a delivery of its subscription falls due, in seconds since the epoch."""
        self.again = min(self.again, time.monotonic() + due - time.time())

    def _claim(self, database: Database) -> Sequence[Delivery]:
        self.sid, deliveries = lease.claim(database, self.group, self._limit, self._lease)
        self._note(database, self.sid, bool(deliveries))
        return deliveries

    def _note(self, database: Database, sid: int, found: bool) -> bool:
        self.sid, self.again = sid, self.deadline
        if not found:
            due = lease.next_due(database, sid)
            if due is not None:
                self.falls_due(due)
        return found
