"""The exclusive handle: it delivers only while it owns its subscription."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec

from abe_router.backend import Delivery, ExclusiveSubscription, Outcome
from abe_router.backends.sqlite import lease, ownership
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.operations import Fetch
from abe_router.backends.sqlite.ownership import AcquireRequest
from abe_router.backends.sqlite.registry import SubscriptionSpec
from abe_router.backends.sqlite.subscription import SQLiteSubscription
from abe_router.backends.sqlite.thread import DatabaseThread
from abe_router.errors import BackendError


class ExclusiveFetch(Fetch):
    """A claim that waits for ownership too, and renews it while it waits."""

    def __init__(
        self,
        request: AcquireRequest,
        deadline: float,
        generation: int,
        *,
        eager: bool,
        future: asyncio.Future[Sequence[Delivery]],
        release: Callable[[Sequence[Delivery]], Any],
    ) -> None:
        super().__init__(
            request.spec, request.limit, request.lease, deadline, eager=eager, future=future, release=release
        )
        self._request = request
        self._generation = generation

    def can_claim(self, database: Database) -> bool:
        """Return whether a claim would change anything. Write nothing."""
        if database.generation != self._generation:
            # The file was replaced: the handle has to say what it holds, in a new fetch.
            self.try_at = self.deadline = time.monotonic()
            return False
        self.sid, seconds = ownership.acquirable(database, self._request)
        self._try_in(seconds)
        return seconds <= 0

    def claim(self, database: Database) -> lease.Claim:
        """Acquire ownership if it is free, and lease the deliveries there are, up to the limit."""
        claim, seconds = ownership.acquire(database, self._request)
        self.claimed, self.sid = claim, claim.sid
        self._try_in(seconds)
        return claim

    def read(self, database: Database, claim: lease.Claim) -> Sequence[Delivery]:
        """Return what was claimed."""
        return ownership.read(database, claim)

    def _try_in(self, seconds: float) -> None:
        self.try_at = min(self.deadline, time.monotonic() + seconds)


class ExclusiveSQLiteSubscription(SQLiteSubscription, ExclusiveSubscription):
    """A handle that acquires ownership by fetching, and releases it when it is closed."""

    def __init__(
        self,
        thread: DatabaseThread,
        spec: SubscriptionSpec,
        lease_seconds: float,
        handles: set[SQLiteSubscription],
    ) -> None:
        super().__init__(thread, spec, lease_seconds, handles)
        self._owner, self._count = ownership.new_owner(), count()
        #: The claims of fetches whose result did not reach the handle, in order.
        self._unconfirmed: dict[int, None] = {}
        #: What the thread was asked for the last time.
        self._asked: Fetch | None = None
        #: The messages that were delivered and are not settled.
        self._held: set[int] = set()
        #: The generation of the file in which the handle knows all of its claims, and that of the last fetch.
        self._generation = self._asked_in = thread.generation

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        self._asked = None
        found = await super().fetch(limit, wait)
        if self._asked is not None and self._asked.answered:
            self._unconfirmed.clear()
            self._generation = self._asked_in
        self._held.update(delivery.receipt.seq for delivery in found)
        return found

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        refused = await super().settle(settlements)
        self._held.difference_update(delivery.receipt.seq for delivery, _ in settlements)
        return refused

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        """Count the failures and lease their messages again, all in one transaction."""
        number, seconds = self._next_claim(), self._lease
        receipts = [(delivery.receipt, wait) for delivery, wait in failed]
        held, now = await self._thread.run(
            lambda database: ownership.postpone(database, receipts, number, seconds)
        )
        return [
            delivery.next_attempt(
                receipt=msgspec.structs.replace(delivery.receipt, claim=number), failed_at=now, wait=wait
            )
            if delivery.receipt in held
            else None
            for delivery, wait in failed
        ]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew ownership, and start the leases anew; return the deliveries that were already lost."""
        sids = {delivery.receipt.sid for delivery in deliveries}
        await self._thread.run(lambda database: ownership.renew(database, sids, self._owner, self._lease))
        return await super().extend(deliveries)

    def _renew(self, database: Database, receipts: Sequence[lease.Receipt]) -> None:
        ownership.renew(database, {receipt.sid for receipt in receipts}, self._owner, self._lease)
        super()._renew(database, receipts)

    async def close(self) -> None:
        is_open = self in self._handles
        await super().close()
        if is_open and self._thread.is_running:
            with suppress(BackendError):  # then ownership ends with its lease
                await self._thread.run(lambda database: ownership.release(database, self._spec, self._owner))

    def _next_claim(self) -> int:
        return ownership.claim_number(self._owner, next(self._count))

    def _new_fetch(self, limit: int, wait: float) -> Fetch:
        self._asked_in = self._thread.generation
        request = AcquireRequest(
            self._spec,
            self._owner,
            self._next_claim(),
            limit,
            self._lease,
            tuple(self._unconfirmed),
            None if self._asked_in == self._generation else tuple(self._held),
        )
        # Until its result is here. If it never comes, the next fetch takes back what was claimed.
        self._unconfirmed[request.claim] = None
        self._asked = ExclusiveFetch(
            request,
            time.monotonic() + wait,
            self._asked_in,
            eager=self._eager,
            future=asyncio.get_running_loop().create_future(),
            release=self._release,
        )
        return self._asked
