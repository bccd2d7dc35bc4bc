"""What the database thread is asked to do: operations on the file, appends, and fetches that may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from abe_router.backend import Delivery
from abe_router.backends.sqlite import lease
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.dedupe import WindowedMessage
from abe_router.backends.sqlite.log import EncodedMessage
from abe_router.backends.sqlite.registry import SubscriptionSpec

T = TypeVar("T")


class Request(Generic[T]):
    """Something the thread is asked to do, and the future of its result.

    The future is one of an event loop, or one that another thread waits for.
    """

    #: Whether it writes nothing.
    reads = False

    #: Whether the thread must not carry it out any more.
    withdrawn = False
    #: Whether the thread has the lock that it needs, so that it may be carried out.
    begun = False

    def __init__(self, future: asyncio.Future[T] | Future[T]) -> None:
        self.future = future

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that gets the result; None when a thread waits for it."""
        return None if isinstance(self.future, Future) else self.future.get_loop()

    def resolve(self, result: T) -> None:
        """Set the result, unless the future is done; called in the event loop of the future."""
        if not self.future.done():
            self.future.set_result(result)

    def reject(self, error: Exception) -> None:
        """Set an error, unless the future is done; called in the event loop of the future."""
        if not self.future.done():
            self.future.set_exception(error)


class Operation(Request[T]):
    """A function of the file, run within a transaction.

    It may run again after a rollback. Its result counts only when the transaction it ran in was committed.
    """

    def __init__(
        self, run: Callable[[Database], T], future: asyncio.Future[T] | Future[T], *, reads: bool = False
    ) -> None:
        super().__init__(future)
        self.run = run
        self.reads = reads


class Append(Request[None]):
    """Messages for the log; those of several requests are added together."""

    def __init__(self, messages: Sequence[EncodedMessage], future: asyncio.Future[None]) -> None:
        super().__init__(future)
        self.messages = messages


class AppendOnce(Request[list[int]]):
    """Messages for the log unless their ids are remembered; the result is the indices of the duplicates.

    Those of several requests are looked up and added together.
    """

    def __init__(self, messages: Sequence[WindowedMessage], future: asyncio.Future[list[int]]) -> None:
        super().__init__(future)
        self.messages = messages


class Fetch(Request[Sequence[Delivery]]):
    """A claim that waits until there is something to claim, or for its deadline on the monotonic clock.

    An `eager` fetch claims at once, without a look first: most likely there is something. When there is
    nothing, it looks before its next claim. `release` gets the deliveries that were claimed when the future
    was already done.
    """

    future: asyncio.Future[Sequence[Delivery]]

    def __init__(
        self,
        spec: SubscriptionSpec,
        limit: int,
        lease_seconds: float,
        deadline: float,
        *,
        eager: bool,
        future: asyncio.Future[Sequence[Delivery]],
        release: Callable[[Sequence[Delivery]], Any],
    ) -> None:
        super().__init__(future)
        self.spec = spec
        self.deadline = deadline
        self.reads = not eager
        #: The number of its subscription, 0 while unknown.
        self.sid = 0
        #: When it is tried again without any change in the file, on the monotonic clock.
        self.try_at = deadline
        #: What it has leased, while the result is on its way.
        self.claimed: lease.Claim | None = None
        #: Whether the result is that of the thread: nothing else, such as an interrupt, came before.
        self.answered = False
        self._limit = limit
        self._lease = lease_seconds
        self._release = release

    def can_claim(self, database: Database) -> bool:
        """Return whether a claim would find anything. Write nothing."""
        self.sid, found = lease.available(database, self.spec)
        self._schedule(database, found)
        return found

    def claim(self, database: Database) -> lease.Claim:
        """Lease the deliveries there are, up to the limit."""
        claim = self.claimed = lease.claim(database, self.spec, self._limit, self._lease)
        self.sid = claim.sid
        self._schedule(database, claim.size > 0)
        return claim

    def read(self, database: Database, claim: lease.Claim) -> Sequence[Delivery]:
        """Return what was claimed."""
        return lease.read(database, claim)

    def add_due(self, due_at: float) -> None:
        """Try again when a delivery of its subscription falls due, in seconds since the epoch."""
        self.try_at = min(self.try_at, time.monotonic() + due_at - time.time())

    def resolve(self, result: Sequence[Delivery]) -> None:
        """Set the deliveries as the result, or release them if the future is done."""
        if not self.future.done():
            self.future.set_result(result)
            self.answered = True
        elif result:
            self._release(result)

    def _schedule(self, database: Database, found: bool) -> None:
        self.try_at = self.deadline
        if not found:
            due_at = lease.next_due(database, self.sid)
            if due_at is not None:
                self.add_due(due_at)
