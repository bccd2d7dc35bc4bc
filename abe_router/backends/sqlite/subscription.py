"""A handle on one subscription of the file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from abe_router.backend import RELEASED, Acked, Dead, Delivery, Outcome, Subscription
from abe_router.backends.sqlite import ids, lease, log
from abe_router.backends.sqlite.group import Group
from abe_router.backends.sqlite.operation import Fetch
from abe_router.backends.sqlite.worker import Worker


class SQLiteSubscription(Subscription):
    """Fetches for one consumer, and is open as long as it is among `handles`.

    A fetch that was interrupted or cancelled hands back what it had claimed at once. If the subscription
    is dropped meanwhile, the next fetch makes it anew.
    """

    def __init__(
        self, worker: Worker, group: Group, lease_seconds: float, handles: set[SQLiteSubscription]
    ) -> None:
        self.pattern, self.group = group.pattern, group.group
        self._worker = worker
        self._group = group
        self._lease = lease_seconds
        self._fetch: Fetch | None = None
        self._interrupted = False
        self._eager = False
        self._handles = handles
        handles.add(self)

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Return at most `limit` deliveries."""
        if self not in self._handles or self._interrupted or limit < 1:
            self._interrupted = False
            return ()
        fetch = self._fetch = self._new_fetch(limit, wait)
        try:
            self._worker.put(fetch)
            found = await fetch.future
            self._eager = len(found) == limit
            return found
        except asyncio.CancelledError:
            self._give_up(fetch)
            raise
        finally:
            self._fetch = None

    def interrupt(self) -> None:
        """Make a waiting `fetch`, or else the next one, return at once."""
        fetch = self._fetch
        if fetch is None:
            self._interrupted = True
        elif not fetch.future.done():
            fetch.future.set_result(())
            self._forget(fetch)

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Carry out the outcomes, all in one transaction; return the deliveries that were refused."""
        if not settlements:
            return ()
        encoded = [_encode(delivery, outcome) for delivery, outcome in settlements]
        refused = await self._worker.submit(lambda database: lease.settle(database, encoded))
        return [settlements[place][0] for place in refused]

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Start the leases anew; return the deliveries whose lease was already lost."""
        if not deliveries:
            return ()
        receipts = [delivery.receipt for delivery in deliveries]
        lost = await self._worker.submit(lambda database: lease.extend(database, receipts, self._lease))
        return [deliveries[place] for place in lost]

    async def close(self) -> None:
        """Let go of the handle; a waiting fetch returns at once."""
        self._handles.discard(self)
        self.interrupt()

    def _new_fetch(self, limit: int, wait: float) -> Fetch:
        return Fetch(
            self._group,
            limit,
            self._lease,
            time.monotonic() + wait,
            eager=self._eager,
            future=asyncio.get_running_loop().create_future(),
            orphaned=self._hand_back,
        )

    def _give_up(self, fetch: Fetch) -> None:
        """Let nothing be stranded of a fetch that was cancelled, its result perhaps being here already."""
        if fetch.future.cancelled() or fetch.future.exception():
            self._forget(fetch)
        else:
            self._hand_back(fetch.future.result())

    def _forget(self, fetch: Fetch) -> None:
        if self._worker.is_running:
            self._worker.put(fetch)

    def _hand_back(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries and self._worker.is_running:
            released = [_encode(delivery, RELEASED) for delivery in deliveries]
            future = self._worker.submit(lambda database: lease.settle(database, released))
            # Should it fail, they come back after their lease.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _encode(delivery: Delivery, outcome: Outcome) -> lease.Settlement:
    text = outcome.dead_letter.pack().decode() if isinstance(outcome, Dead) else ""
    outputs: Sequence[ids.Windowed] = ()
    if isinstance(outcome, Acked):
        outputs = [ids.Windowed(log.encode(message), outcome.window) for message in outcome.outputs]
    return delivery.receipt, outcome, text, outputs
