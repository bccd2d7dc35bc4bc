"""What routes.yaml names."""

from typing import Any

from django.db import close_old_connections

from shop.models import Order


def charge(order: dict[str, Any]) -> None:
    """Mark the order as charged; doing so twice does no harm."""
    close_old_connections()  # as Django does for each request: this thread may have slept for hours
    Order.objects.filter(pk=order["id"]).update(charged=True)
