"""What the worker is asked to do: operations on the file, appends, and fetches that may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from abe_router.backend import Delivery
from abe_router.backends.sqlite import lease
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group
from abe_router.backends.sqlite.ids import Windowed
from abe_router.backends.sqlite.log import Encoded

T = TypeVar("T")


class Asked(Generic[T]):
    """Something that was asked for, and the future of its result."""

    #: Whether nothing is written for it.
    reads = False

    def __init__(self, future: asyncio.Future[T]) -> None:
        self.future = future

    def resolve(self, result: T) -> None:
        """Give the result to whoever waits for it; called in the event loop."""
        if not self.future.done():
            self.future.set_result(result)

    def reject(self, error: Exception) -> None:
        """Give an error to whoever waits; called in the event loop."""
        if not self.future.done():
            self.future.set_exception(error)


class Operation(Asked[T]):
    """A function of the file, run within a transaction.

    It may run more than once, after a rollback, and its result counts only when the transaction it ran
    in was committed.
    """

    def __init__(
        self, run: Callable[[Database], T], future: asyncio.Future[T], *, reads: bool = False
    ) -> None:
        super().__init__(future)
        self.run = run
        self.reads = reads


class Append(Asked[None]):
    """Messages for the log; those of several appends are added together."""

    def __init__(self, messages: Sequence[Encoded], future: asyncio.Future[None]) -> None:
        super().__init__(future)
        self.messages = messages


class AppendOnce(Asked[list[int]]):
    """Messages for the log unless their ids are remembered; the result are the places of those that are.

    Those of several are looked up and added together.
    """

    def __init__(self, messages: Sequence[Windowed], future: asyncio.Future[list[int]]) -> None:
        super().__init__(future)
        self.messages = messages


class Fetch(Asked[Sequence[Delivery]]):
    """A claim that waits until there is something to claim, or for its deadline on the monotonic clock.

    `eager` fetches try at once: most likely there is something. `orphaned` gets the deliveries that were
    claimed when nobody waited for them any more.
    """

    def __init__(
        self,
        group: Group,
        limit: int,
        lease_seconds: float,
        deadline: float,
        *,
        eager: bool,
        future: asyncio.Future[Sequence[Delivery]],
        orphaned: Callable[[Sequence[Delivery]], Any],
    ) -> None:
        super().__init__(future)
        self.group = group
        self.deadline = deadline
        self.reads = not eager
        #: The number of its subscription, 0 while unknown.
        self.sid = 0
        #: When it is worth another try without any news, on the monotonic clock.
        self.again = deadline
        self._limit = limit
        self._lease = lease_seconds
        self._orphaned = orphaned

    def is_worth_it(self, database: Database) -> bool:
        """Say whether a try would find anything, without writing."""
        self.sid, found = lease.available(database, self.group)
        self._note(database, found)
        return found

    def claim(self, database: Database) -> lease.Claim:
        """Lease what there is, up to the limit."""
        claim = lease.claim(database, self.group, self._limit, self._lease)
        self.sid = claim.sid
        self._note(database, claim.size > 0)
        return claim

    def read(self, database: Database, claim: lease.Claim) -> Sequence[Delivery]:
        """Return what was claimed."""
        return lease.read(database, claim)

    def falls_due(self, due: float) -> None:
        """Take note that a delivery of its subscription falls due, in seconds since the epoch."""
        self.again = min(self.again, time.monotonic() + due - time.time())

    def resolve(self, result: Sequence[Delivery]) -> None:
        """Give the deliveries to whoever waits for them, or else hand them back."""
        if not self.future.done():
            self.future.set_result(result)
        elif result:
            self._orphaned(result)

    def _note(self, database: Database, found: bool) -> None:
        self.again = self.deadline
        if not found:
            due = lease.next_due(database, self.sid)
            if due is not None:
                self.falls_due(due)
