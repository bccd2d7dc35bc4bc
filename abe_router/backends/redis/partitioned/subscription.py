"""The handles on a subscription whose keys are in one or several partitions.

A delivery belongs to the handle of the partition of its key, which settles it. A subscription of one key has
one handle, so its calls go straight there. An exclusive handle owns each stream for itself, as it does under
one hash tag, so nothing is owned by several partitions together.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

from abe_router.backend import RELEASED, Delivery, ExclusiveSubscription, Outcome, Subscription
from abe_router.backends.redis.exclusive import ExclusiveRedisSubscription
from abe_router.backends.redis.partitioned.fetching import Fetching, Handle
from abe_router.backends.redis.partitioned.outbox import divert
from abe_router.backends.redis.partitioned.partition import all_of
from abe_router.backends.redis.subscription import RedisSubscription
from abe_router.errors import BackendError

H = TypeVar("H", RedisSubscription, ExclusiveRedisSubscription)
T = TypeVar("T")


class PartitionedSubscription(Subscription, Generic[H]):
    """Fetches from all partitions that may have a matching key, and settles where a delivery came from.

    `number` returns the number of the partition of a key; `closed` is called once, when the handle closes.
    """

    def __init__(
        self,
        pattern: str,
        group: str,
        *,
        lease: float,
        number: Callable[[str], int],
        closed: Callable[[], None],
    ) -> None:
        self.pattern, self.group, self._lease = pattern, group, lease
        self._number, self._on_close = number, closed
        self._handles: Mapping[int, H] = {}
        self._fetching: Fetching | None = None
        self._closed = False

    def use(self, handles: Mapping[int, H]) -> None:
        """Fetch from these handles, by the number of their partition."""
        self._handles = handles
        if len(handles) > 1:
            self._fetching = Fetching(tuple[Handle, ...](handles.values()), self._lease, self._release)

    def wake(self) -> None:
        """Look for work of the handles."""
        if self._fetching:
            self._fetching.wake()

    async def fetch(self, limit: int, wait: float) -> Sequence[Delivery]:
        if self._fetching:
            return await self._fetching.fetch(limit, wait, self.name)
        (handle,) = self._handles.values()
        return await handle.fetch(limit, wait)

    def interrupt(self) -> None:
        if self._fetching:
            self._fetching.interrupt()
        else:
            for handle in self._handles.values():
                handle.interrupt()

    async def settle(self, settlements: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        parts, refused = self._parts(settlements, lambda settlement: settlement[0])
        calls = [self._settle(number, part) for number, part in parts.items()]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed: list[BackendError] = []
        settled: set[Delivery] = set()
        for part, answer in zip(parts.values(), answers, strict=True):
            if isinstance(answer, BackendError):
                failed.append(answer)
                settled.update(answer.settled)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                refused += answer
                settled.update(delivery for delivery, _ in part)
        if failed:
            failed[0].settled = settled.difference(refused)
            raise failed[0]
        return refused

    async def _settle(self, number: int, part: Sequence[tuple[Delivery, Outcome]]) -> Sequence[Delivery]:
        """Settle what came from one partition; outputs to others go into its outbox."""
        part = divert(part, self.name, lambda key: self._number(key) == number)
        return await self._handles[number].settle(part)

    async def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        parts, refused = self._parts(deliveries, lambda delivery: delivery)
        calls = [self._handles[number].extend(part) for number, part in parts.items()]
        for lost in await all_of(calls):
            refused += lost
        return refused

    def renew(self, deliveries: Sequence[Delivery]) -> None:
        parts, _ = self._parts(deliveries, lambda delivery: delivery)
        # A fetch that runs may have leased what is not returned yet.
        renewed = [
            (handle, parts.get(number, ()))
            for number, handle in self._handles.items()
            if number in parts or handle.has_work or len(self._handles) == 1
        ]
        if len(renewed) == 1:
            renewed[0][0].renew(renewed[0][1])
        elif renewed:
            with ThreadPoolExecutor(len(renewed)) as threads:
                for done in [threads.submit(handle.renew, part) for handle, part in renewed]:
                    done.result()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._fetching:
                await self._fetching.close()
            await all_of([handle.close() for handle in self._handles.values()])
        finally:
            self._on_close()

    def _parts(
        self, items: Sequence[T], delivery: Callable[[T], Delivery]
    ) -> tuple[Mapping[int, list[T]], list[Delivery]]:
        """Return the items by partition, in order, and the deliveries of partitions without a handle."""
        parts: dict[int, list[T]] = defaultdict(list)
        strange: list[Delivery] = []
        for item in items:
            number = self._number(delivery(item).message.key)
            if number in self._handles:
                parts[number].append(item)
            else:
                strange.append(delivery(item))
        return parts, strange

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            with suppress(BackendError):  # then they come again when their leases end
                await self.settle([(delivery, RELEASED) for delivery in deliveries])


class PartitionedExclusive(PartitionedSubscription[ExclusiveRedisSubscription], ExclusiveSubscription):
    """Owns each stream that no other exclusive handle owns, in all partitions."""

    async def postpone(self, failed: Sequence[tuple[Delivery, float]]) -> Sequence[Delivery | None]:
        parts, _ = self._parts(failed, lambda each: each[0])
        answers = await all_of([self._handles[number].postpone(part) for number, part in parts.items()])
        found = {
            delivery: retry
            for part, retries in zip(parts.values(), answers, strict=True)
            for (delivery, _), retry in zip(part, retries, strict=True)
        }
        return [found.get(delivery) for delivery, _ in failed]
