"""The handlers of routes.yaml: a small shop."""

import asyncio
import sys
from typing import Any

from abe_router import Message, Reject


async def charge(order: dict[str, Any]) -> None:
    """Charge an order; reject an empty one without another attempt."""
    if order["total"] == 0:
        raise Reject("nothing to charge")
    await asyncio.sleep(0.01)  # instead of a call to a payment provider
    say(f"billing: charged {order['total']} for order {order['id']}")


def record(order: dict[str, Any]) -> None:
    """Record a large order; a plain function runs in a thread."""
    say(f"audit: order {order['id']} is large: {order['total']}")


async def follow(payload: Any, message: Message) -> None:
    """Log every message about orders; the second parameter has its key, id, headers and attempt."""
    say(f"trail: {message.key} {message.id} with {len(payload)} fields")


def say(line: str) -> None:
    """Print a line in one write, so that lines of several threads do not mix."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
