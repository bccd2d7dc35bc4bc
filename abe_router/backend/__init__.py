"""The contract of a backend, in promises.

A backend keeps a log of messages for each key and, for each subscription, what of the log it has handed
out and not yet seen settled. It promises at-least-once: what `append` accepted stays until every
subscription has settled it.

A subscription is named by a key or pattern and a group. Subscriptions of the same name, in any number of
processes, share its messages; every other subscription gets its own copy.

All methods are coroutines of one event loop and may run concurrently with each other. Any of them raises
BackendUnavailable when the server or file cannot be reached; the caller may try again, and the backend
reconnects by itself. Cancelling a call never loses a message: what it had fetched comes back after its
lease at the latest.
"""

from abe_router.backend.backend import Backend
from abe_router.backend.delivery import (
    ACKED,
    RELEASED,
    Acked,
    Dead,
    DeadLetter,
    Delayed,
    Delivery,
    Outcome,
    Reason,
    Released,
)
from abe_router.backend.exclusive import ExclusiveSubscription
from abe_router.backend.features import FEATURES, Feature, Features
from abe_router.backend.health import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
    unread_keys,
)
from abe_router.backend.key_value import Entry
from abe_router.backend.peek import Peeked, PeekState
from abe_router.backend.retention import RETAIN_TTL, retention
from abe_router.backend.subscription import Subscription, SubscriptionStatus

__all__ = [
    "ACKED",
    "FEATURES",
    "RELEASED",
    "RETAIN_TTL",
    "Acked",
    "Backend",
    "Dead",
    "DeadLetter",
    "Delayed",
    "Delivery",
    "Entry",
    "ExclusiveSubscription",
    "Feature",
    "Features",
    "HealthCheck",
    "HealthResult",
    "Outcome",
    "PeekState",
    "Peeked",
    "Reason",
    "Released",
    "Subscription",
    "SubscriptionName",
    "SubscriptionStatus",
    "orphaned_subscriptions",
    "retention",
    "unread_keys",
]
