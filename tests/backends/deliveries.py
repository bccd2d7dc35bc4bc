"""What the tests of single providers do with handles and deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from abe_router.backend import ACKED, Dead, DeadLetter, Delivery, Reason, Subscription
from tests.limits import HANG


def bodies(deliveries: Iterable[Delivery]) -> list[bytes]:
    """Return the payloads, as they were sent."""
    return [delivery.message.body for delivery in deliveries]


def as_dead(delivery: Delivery) -> Dead:
    """Return the outcome of a delivery that ends as a dead letter."""
    message, reason = delivery.message, Reason("failed", "ValueError", "no stock")
    return Dead(DeadLetter(f"{message.key}/billing", message, reason, 1, delivery.deliveries, 1.0, 2.0))


async def take(handle: Subscription, count: int) -> list[Delivery]:
    """Fetch until `count` deliveries have come."""
    came: list[Delivery] = []
    async with asyncio.timeout(HANG):
        while len(came) < count:
            came += await handle.fetch(count - len(came), 1.0)
    return came


async def ack(handle: Subscription, deliveries: Sequence[Delivery]) -> None:
    """Ack the deliveries; fail when one is refused."""
    assert not await handle.settle([(delivery, ACKED) for delivery in deliveries])


async def drain(handle: Subscription, limit: int = 100) -> list[Delivery]:
    """Fetch and ack until nothing is ready, `limit` deliveries at a time; return all of them."""
    came: list[Delivery] = []
    while fetched := await handle.fetch(limit, 0):
        await ack(handle, fetched)
        came += fetched
    return came
