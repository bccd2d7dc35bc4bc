"""The consumer of one route: fetch, try, settle, renew the leases.

`around` of a consumer wraps each call of the handler.
"""

from abe_router.consumer.attempt import Around, as_async
from abe_router.consumer.backend_calls import Recovery
from abe_router.consumer.consumer import Consumer
from abe_router.consumer.limits import NO_LIMITS, RouteLimits
from abe_router.consumer.stall_monitor import StallMonitor
from abe_router.consumer.suspects import SuspectGate

__all__ = [
    "NO_LIMITS",
    "Around",
    "Consumer",
    "Recovery",
    "RouteLimits",
    "StallMonitor",
    "SuspectGate",
    "as_async",
]
