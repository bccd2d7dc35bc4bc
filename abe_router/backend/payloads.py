"""The messages of a subscription as plain payloads, for a loop of the caller's own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from abe_router.backend.delivery import ACKED, RELEASED, Dead, DeadLetter, Delivery, Outcome, Reason
from abe_router.backend.subscription import Subscription
from abe_router.errors import BackendUnavailable, PayloadMalformed
from abe_router.messages.message import decode

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: The group of those who name none.
DEFAULT_GROUP = "default"
#: How long a message is held without a sign of life, in seconds.
LEASE = 30.0
#: How long one fetch waits, in seconds.
WAIT = 5.0
#: A message handed out more often is not handed out again: most likely it kills the process.
MAX_DELIVERIES = 10
#: Wait after the backend could not be reached, in seconds: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


async def payloads(
    subscribe: Callable[[], Awaitable[Subscription]], lease: float
) -> AsyncGenerator[Any, None]:
    """Yield payloads, one at a time; see Backend.consume."""
    subscription = await subscribe()
    hold = _Hold(subscription)
    beating = asyncio.create_task(hold.beat(lease / 3))
    try:
        while True:
            began = time.monotonic()
            fetched = await _persist(lambda: subscription.fetch(1, WAIT))
            if not fetched and time.monotonic() - began < FIRST_PAUSE:
                await asyncio.sleep(FIRST_PAUSE)  # the backend was closed, and nobody waits there any more
            for delivery in fetched:
                payload = _payload(delivery)
                if isinstance(payload, Reason):
                    letter = _letter(subscription, delivery, payload)
                    _log.error("%s: dead letter: %s: %s", letter.route, delivery.message.id, payload.message)
                    await hold.settle(delivery, Dead(letter))
                    continue
                hold.delivery = delivery
                yield payload
                hold.delivery = None
                await hold.settle(delivery, ACKED)
    finally:
        beating.cancel()
        await hold.close()


class _Hold:
    """What the caller has in hand, kept until it is settled."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.delivery: Delivery | None = None

    async def beat(self, seconds: float) -> None:
        """Extend the lease of the delivery in hand, again and again after as many seconds."""
        while True:
            await asyncio.sleep(seconds)
            if self.delivery is not None:
                try:
                    await self._subscription.extend([self.delivery])
                except BackendUnavailable as error:
                    _log.warning("lease not extended: %s", error)

    async def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Settle a delivery, trying until the backend can be reached."""
        if await _persist(lambda: self._subscription.settle([(delivery, outcome)])):
            _log.warning("lost the lease of %s: it may be handled twice", delivery.message.id)

    async def close(self) -> None:
        """Hand back what is in hand; when the backend cannot be reached, it comes back after its lease."""
        try:
            if self.delivery is not None:
                await self._subscription.settle([(self.delivery, RELEASED)])
            await self._subscription.close()
        except BackendUnavailable as error:
            _log.warning("a message is handed back only after its lease: %s", error)


def _payload(delivery: Delivery) -> Any:
    """Return the payload of a delivery, or the reason for which nobody gets to see it."""
    if delivery.deliveries > MAX_DELIVERIES:
        text = f"handed out {delivery.deliveries} times, limit {MAX_DELIVERIES}; it may kill the process"
        return Reason("max_deliveries", "MaxDeliveries", text)
    try:
        return decode(delivery.message.body)
    except PayloadMalformed as error:
        return Reason("malformed", "PayloadMalformed", str(error))


def _letter(subscription: Subscription, delivery: Delivery, reason: Reason) -> DeadLetter:
    now = time.time()
    return DeadLetter(
        route=f"{subscription.pattern}/{subscription.group}",
        message=delivery.message,
        reason=reason,
        attempts=delivery.message.attempt,
        deliveries=delivery.deliveries,
        first_failed_at=delivery.failed_at or now,
        last_failed_at=now,
    )


async def _persist(call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` returns, calling it until the backend can be reached."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await call()
        except BackendUnavailable as error:
            _log.warning("%s; tried again in %.1f s", error, pause)
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
