"""The loop of one route: fetch, try, settle, renew the leases."""

from abe_router.consumer.consumer import Consumer

__all__ = ["Consumer"]
