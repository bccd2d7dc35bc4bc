"""The loop of one route: fetch, try, settle, keep the leases."""

from abe_router.consumer.consumer import Consumer
from abe_router.consumer.pause import FIRST_PAUSE, LONGEST_PAUSE

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Consumer"]
