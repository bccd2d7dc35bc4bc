"""`consume`: yields the payloads of a subscription for a loop of the caller, as in the guide.

It does not use a Consumer, because its promises differ. The previous message is already acked when the next
one is yielded. Nothing is prefetched. A backend that is unreachable at the start raises an error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from abe_router.backend import (
    ACKED,
    RELEASED,
    Backend,
    Dead,
    DeadLetter,
    Delivery,
    Outcome,
    Reason,
    Subscription,
)
from abe_router.backends.abstract import DEFAULT_GROUP
from abe_router.backoff import Backoff
from abe_router.errors import BackendUnavailable, PayloadMalformed, SubscriptionClosed
from abe_router.messages.message import decode
from abe_router.text import format_duration

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Our backends as queues, under the names that the entry points for Abstract Backend's own loader use.
_QUEUES = {
    "MemoryQueue": "abe_router.backends.memory:MemoryBackend",
    "RedisQueue": "abe_router.backends.redis:RedisBackend",
    "SQLiteQueue": "abe_router.backends.sqlite:SQLiteBackend",
}
#: Lease of a delivery, in seconds; it is renewed three times in that time.
LEASE = 30.0
#: How long one fetch waits for a message, in seconds.
FETCH_WAIT = 5.0
#: A message that was delivered more often becomes a dead letter: it probably kills the process.
MAX_DELIVERIES = 10
#: Delay after the backend could not be reached, in seconds: the first, and the longest.
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0


class QueueBackend(Backend):
    """A backend with `consume`, as `load_backend` returns it."""

    async def consume(self, *, group: str | None = None, key: str = "#") -> AsyncGenerator[Any, None]:
        """Yield the payloads of the messages whose key matches; asking for the next one acks the one before.

        The payload that is not acked comes back when the iterator is closed, its task is cancelled or the
        process ends. The default group is `default`. A message that is not JSON, or was delivered too often,
        becomes a dead letter and is not yielded. The iterator ends when the backend is closed. Raise
        BackendUnavailable if the backend cannot be reached at the start; after that, wait until it can.
        """
        loop = _ConsumeLoop(await self.subscribe(key, group or DEFAULT_GROUP, lease=LEASE))
        renewing = asyncio.create_task(loop.renew_lease(LEASE / 3))
        try:
            while True:
                try:
                    payload = await loop.next()
                except SubscriptionClosed:
                    return
                yield payload
        finally:
            renewing.cancel()
            await loop.close()


@cache
def queue_class(backend: type[Backend]) -> type[QueueBackend]:
    """Return the subclass of a backend class that has `consume` as well."""
    if issubclass(backend, QueueBackend):
        return backend
    about = {"__doc__": backend.__doc__, "__module__": backend.__module__}
    return type(backend.__name__, (QueueBackend, backend), about)


def __getattr__(name: str) -> Any:
    """Import a queue backend on demand, so that each entry point loads only its own."""
    if name not in _QUEUES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, backend = _QUEUES[name].partition(":")
    return queue_class(getattr(import_module(module), backend))


class _ConsumeLoop:
    """Fetches one delivery at a time, and holds it until the next one is requested."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._held: Delivery | None = None

    async def next(self) -> Any:
        """Ack the held delivery, fetch the next one, and return its payload; raise SubscriptionClosed."""
        acked, self._held = self._held, None
        if acked is not None:
            await self._settle(acked, ACKED)
        while True:
            for delivery in await _persist(lambda: self._subscription.fetch(1, FETCH_WAIT)):
                payload = _payload(delivery)
                if not isinstance(payload, Reason):
                    self._held = delivery
                    return payload
                dead = _dead_letter(self._subscription, delivery, payload)
                _log.error("%s: dead letter: %s: %s", dead.route, delivery.message.id, payload.message)
                await self._settle(delivery, Dead(dead))

    async def renew_lease(self, interval: float) -> None:
        """Extend the lease of the held delivery after each `interval`, in seconds."""
        while True:
            await asyncio.sleep(interval)
            if self._held is not None:
                try:
                    await self._subscription.extend([self._held])
                except BackendUnavailable as error:
                    _log.warning("cannot extend a lease: %s", error)

    async def close(self) -> None:
        """Release the held delivery; if the backend cannot be reached, it comes back after its lease."""
        try:
            if self._held is not None:
                await self._subscription.settle([(self._held, RELEASED)])
            await self._subscription.close()
        except BackendUnavailable as error:
            _log.warning("cannot release a message, it comes back after its lease: %s", error)

    async def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if await _persist(lambda: self._subscription.settle([(delivery, outcome)])):
            text = "another worker may handle it too, or the backend lost its lease"
            _log.warning("lost the lease of %s: %s", delivery.message.id, text)


def _payload(delivery: Delivery) -> Any:
    """Return the payload of a delivery, or the reason for its dead letter."""
    if delivery.deliveries > MAX_DELIVERIES:
        text = f"handed out {delivery.deliveries} times, limit {MAX_DELIVERIES}; it may kill the process"
        return Reason("max_deliveries", "MaxDeliveries", text)
    try:
        return decode(delivery.message.body)
    except PayloadMalformed as error:
        return Reason("malformed", "PayloadMalformed", delivery.fault or str(error))


def _dead_letter(subscription: Subscription, delivery: Delivery, reason: Reason) -> DeadLetter:
    now = time.time()
    return DeadLetter(
        route=subscription.name,
        message=delivery.message,
        reason=reason,
        attempts=delivery.message.attempt,
        deliveries=delivery.deliveries,
        first_failed_at=delivery.failed_at or now,
        last_failed_at=now,
    )


async def _persist(call: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `call`. Repeat the call while the backend is unreachable."""
    backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)
    while True:
        try:
            return await call()
        except BackendUnavailable as error:
            delay = backoff.next()
            _log.warning("%s; next try in %s", error, format_duration(delay))
            await asyncio.sleep(delay)
