"""Handlers: plain functions that take a payload."""

from typing import Any

from abe_router import Reject


async def charge(order: dict[str, Any]) -> None:
    """Charge an order. An empty one becomes a dead letter at once; any other error is retried."""
    if order["total"] == 0:
        raise Reject("nothing to charge")
    print(f"charged {order['total']} for order {order['id']}", flush=True)


def record(order: dict[str, Any]) -> None:
    """Record an order. A function that is not async runs in a thread."""
    print(f"recorded order {order['id']}: {order['total']}", flush=True)
