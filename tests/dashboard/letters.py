"""Dead letters for the pages: made by a subscription, as a worker makes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from abe_router.backend import Backend, Dead, DeadLetter, Reason
from abe_router.messages.message import Message, encode, new_id
from tests.limits import HANG

ROUTE = "orders.created", "billing"
TRACEBACK = """\
Traceback (most recent call last):
  File "/usr/lib/python3.11/asyncio/tasks.py", line 277, in step
    result = coro.send(None)
  File "/srv/shop/billing.py", line 57, in charge
    return total(order)
KeyError: 'total'
"""
FAILED = Reason("failed", "KeyError", "'total'", TRACEBACK, type="KeyError", frame="shop.billing:charge")
INVALID = Reason(
    "invalid",
    "PayloadInvalid",
    "at /total: minimum: expected at least 0, found -1",
    pointer="/total",
    keyword="minimum",
)


@dataclass(frozen=True)
class Dying:
    """A message that is to die, and why."""

    payload: Any
    reason: Reason = FAILED
    headers: Mapping[str, str] = field(default_factory=dict)
    ago: float = 60.0
    id: str = ""
    attempts: int = 1
    revision: str = "3fa90b2c11d0"


async def kill(backend: Backend, dying: Sequence[Dying], route: tuple[str, str] = ROUTE) -> Sequence[str]:
    """Make messages dead letters of a route, and return the ids of all that it has, oldest first."""
    subscription = await backend.subscribe(*route)
    now = time.time()
    messages = [
        Message(
            each.id or new_id(),
            route[0],
            each.payload if isinstance(each.payload, bytes) else encode(each.payload),
            each.headers,
            now - each.ago - 3,
        )
        for each in dying
    ]
    await backend.append(messages)
    for each in dying:
        (delivery,) = await subscription.fetch(1, HANG)
        failed_at = now - each.ago
        dead = DeadLetter(
            "/".join(route),
            delivery.message,
            each.reason,
            each.attempts,
            each.attempts,
            failed_at - 2 if each.attempts > 1 else failed_at,
            failed_at,
            each.revision,
        )
        await subscription.settle([(delivery, Dead(dead))])
    await subscription.close()
    return [each.id for each in await backend.dead_letters(*route, limit=1000, bodies=False)]
