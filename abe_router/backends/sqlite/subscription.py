"""A handle on one subscription of the file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from abe_router.backend import ACKED, RELEASED, Acked, Dead, Delivery, Outcome, Subscription
from abe_router.backends.sqlite import dedupe, lease, log
from abe_router.backends.sqlite.database import Database
from abe_router.backends.sqlite.operations import Fetch
from abe_router.backends.sqlite.registry import SubscriptionSpec
from abe_router.backends.sqlite.thread import DatabaseThread
from abe_router.errors import SubscriptionClosed


class SQLiteSubscription(Subscription):
    """Fetches for one consumer. It is open as long as it is among `handles`.

    A fetch that was interrupted, cancelled or closed releases at once what it had claimed. If the
    subscription is dropped, the next fetch creates it again.
    """

    def __init__(
        self,
        thread: DatabaseThread,
        spec: SubscriptionSpec,
        lease_seconds: float,
        handles: set[SQLiteSubscription],
    ) -> None:
        self.pattern, self.group = spec.pattern, spec.group
        self._thread = thread
        self._spec = spec
        self._lease = lease_seconds
        self._fetch: Fetch | None = None
        self._interrupted = False
        self._eager = False
        self._handles = handles
        handles.add(self)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self not in self._handles:
            raise self._closed()
        if self._interrupted or limit < 1:
            self._interrupted = False
            return ()
        fetch = self._fetch = self._new_fetch(limit, wait)
        try:
            self._thread.send(fetch)
            found = await fetch.future
            self._eager = len(found) == limit
            return found
        except asyncio.CancelledError:
            self._give_up(fetch)
            raise
        finally:
            self._fetch = None

    def interrupt(self) -> None:
        fetch = self._fetch
        if fetch is None:
            self._interrupted = True
        elif not fetch.future.done():
            fetch.future.set_result(())
            self._withdraw(fetch)

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, all in one transaction; return the deliveries that were refused."""
        if not settlements:
            return ()
        if all(outcome is ACKED for _, outcome in settlements):  # most are, and this is a hot path
            receipts = [delivery.receipt for delivery, _ in settlements]
            refused = await self._thread.run(lambda database: lease.ack(database, receipts))
        else:
            encoded = [_encode(delivery, outcome) for delivery, outcome in settlements]
            refused = await self._thread.run(lambda database: lease.settle(database, encoded))
        return [settlements[index][0] for index in refused]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        if not deliveries:
            return ()
        receipts = [delivery.receipt for delivery in deliveries]
        lost = await self._thread.run(lambda database: lease.extend(database, receipts, self._lease))
        return [deliveries[index] for index in lost]

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        receipts, fetch = [delivery.receipt for delivery in deliveries], self._fetch
        claimed = None if fetch is None else fetch.claimed

        def run(database: Database) -> lease.Claim | None:
            self._renew(database, receipts)
            return claimed and lease.extend_claim(database, claimed, self._lease)

        extended = self._thread.run_blocking(run, self._lease)
        if fetch is not None and fetch.claimed is claimed:
            fetch.claimed = extended

    async def close(self) -> None:
        self._handles.discard(self)
        fetch = self._fetch
        if fetch is not None and not fetch.future.done():
            fetch.future.set_exception(self._closed())
            self._withdraw(fetch)

    def _renew(self, database: Database, receipts: Sequence[lease.Receipt]) -> None:
        lease.extend(database, receipts, self._lease)

    def _closed(self) -> SubscriptionClosed:
        return SubscriptionClosed(f"the handle on `{self.name}` is closed")

    def _new_fetch(self, limit: int, wait: float) -> Fetch:
        return Fetch(
            self._spec,
            limit,
            self._lease,
            time.monotonic() + wait,
            eager=self._eager,
            future=asyncio.get_running_loop().create_future(),
            release=self._release,
        )

    def _give_up(self, fetch: Fetch) -> None:
        """Withdraw a cancelled fetch, or release its deliveries if they have arrived already."""
        if fetch.future.cancelled() or fetch.future.exception():
            self._withdraw(fetch)
        else:
            self._release(fetch.future.result())

    def _withdraw(self, fetch: Fetch) -> None:
        """Let the thread forget a fetch whose future is done."""
        if self._thread.is_running:
            self._thread.send(fetch)

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries and self._thread.is_running:
            released = [_encode(delivery, RELEASED) for delivery in deliveries]
            future = self._thread.run(lambda database: lease.settle(database, released))
            # If it fails, they come back after their lease.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _encode(delivery: Delivery, outcome: Outcome) -> lease.Settlement:
    content = outcome.dead_letter.pack().decode() if isinstance(outcome, Dead) else ""
    outputs: Sequence[dedupe.WindowedMessage] = ()
    if isinstance(outcome, Acked):
        outputs = [dedupe.WindowedMessage(log.encode(message), outcome.window) for message in outcome.outputs]
    return delivery.receipt, outcome, content, outputs
