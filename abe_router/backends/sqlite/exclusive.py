"""The handle on a subscription that has it to itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec

from abe_router.backend import Delivery, ExclusiveSubscription
from abe_router.backends.sqlite import lease, place
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.group import Group
from abe_router.backends.sqlite.operation import Fetch
from abe_router.backends.sqlite.place import Wish
from abe_router.backends.sqlite.subscription import SQLiteSubscription
from abe_router.backends.sqlite.worker import Worker
from abe_router.errors import BackendError


class ExclusiveFetch(Fetch):
    """A claim that waits for the place too, and keeps it while it waits."""

    def __init__(
        self,
        wish: Wish,
        deadline: float,
        *,
        eager: bool,
        future: asyncio.Future[Sequence[Delivery]],
        orphaned: Callable[[Sequence[Delivery]], Any],
    ) -> None:
        super().__init__(
            wish.group, wish.limit, wish.lease, deadline, eager=eager, future=future, orphaned=orphaned
        )
        self._wish = wish

    def is_worth_it(self, database: Database) -> bool:
        """Say whether a claim would change anything, without writing."""
        self.sid, seconds = place.look(database, self._wish)
        self._look_again(seconds)
        return seconds <= 0

    def claim(self, database: Database) -> lease.Claim:
        """Take the place if it is free, and lease what there is, up to the limit."""
        claim, seconds = place.claim(database, self._wish)
        self.sid = claim.sid
        self._look_again(seconds)
        return claim

    def read(self, database: Database, claim: lease.Claim) -> Sequence[Delivery]:
        """Return what was claimed."""
        return place.read(database, claim)

    def _look_again(self, seconds: float) -> None:
        self.again = min(self.deadline, time.monotonic() + seconds)


class ExclusiveSQLiteSubscription(SQLiteSubscription, ExclusiveSubscription):
    """Takes the place of the subscription when it fetches and the place is free."""

    def __init__(
        self, worker: Worker, group: Group, lease_seconds: float, handles: set[SQLiteSubscription]
    ) -> None:
        super().__init__(worker, group, lease_seconds, handles)
        self._owner, self._count = place.new_owner(), count()
        self._unsure: dict[int, None] = {}
        self._given_up = False

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries, once the place is ours."""
        self._given_up = False
        found = await super().fetch(limit, wait)
        if not self._given_up:
            self._unsure.clear()
        return found

    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once."""
        self._given_up = self._fetch is not None
        super().interrupt()

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        """Count the failures in one transaction, and claim what failed anew."""
        number, seconds = self._next_number(), self._lease
        receipts = [(delivery.receipt, wait) for delivery, wait in failed]
        held, now = await self._worker.submit(
            lambda database: place.postpone(database, receipts, number, seconds)
        )
        return [
            _next_attempt(delivery, wait, number, now) if delivery.receipt in held else None
            for delivery, wait in failed
        ]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Keep the place, and start the leases anew; return the deliveries that were already lost."""
        sids = {delivery.receipt.sid for delivery in deliveries}
        await self._worker.submit(lambda database: place.keep(database, sids, self._owner, self._lease))
        return await super().extend(deliveries)

    async def close(self) -> None:
        """Let go of the handle and of the place."""
        is_open = self in self._handles
        await super().close()
        if is_open and self._worker.is_running:
            with suppress(BackendError):  # then the place is free after the lease
                await self._worker.submit(lambda database: place.leave(database, self._group, self._owner))

    def _next_number(self) -> int:
        return place.number(self._owner, next(self._count))

    def _new_fetch(self, limit: int, wait: float) -> Fetch:
        wish = Wish(self._group, self._owner, self._next_number(), limit, self._lease, tuple(self._unsure))
        # Until its answer is here: should it never come, the next fetch takes back what was claimed.
        self._unsure[wish.number] = None
        return ExclusiveFetch(
            wish,
            time.monotonic() + wait,
            eager=self._eager,
            future=asyncio.get_running_loop().create_future(),
            orphaned=self._hand_back,
        )


def _next_attempt(delivery: Delivery, wait: float, number: int, now: float) -> Delivery:
    message = delivery.message
    return Delivery(
        msgspec.structs.replace(message, attempt=message.attempt + 1),
        delivery.deliveries + 1,
        delivery.receipt._replace(claim=number),
        delivery.failed_at or now,
        wait,
    )
