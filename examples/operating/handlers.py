"""The handlers of config/routes.yaml."""

from typing import Any

from abe_router import Reject


async def charge(order: dict[str, Any]) -> None:
    """Charge an order; reject an empty one without another attempt."""
    if order["total"] == 0:
        raise Reject("nothing to charge")
    print(f"charged {order['total']} for order {order['id']}", flush=True)
