"""The contract of a backend: what each method promises.

A backend stores a log of messages for each key. For each subscription, it stores which messages are delivered
and not yet settled. It promises at-least-once delivery: a message that `append` accepted stays until every
subscription has settled it.

A subscription is named by a key or pattern and a group. Handles with the same name, in any number of
processes, share its messages. Every other subscription gets its own copy.

All methods are coroutines of one event loop and may run concurrently. The exception is `Subscription.renew`,
which runs in a thread while the event loop is blocked. Any of them raises BackendUnavailable
if the server or file cannot be reached. The caller may try again; the backend reconnects by itself.
Cancelling a call never loses a message: deliveries that it fetched come back after their lease at the latest.
"""

from abe_router.backend.backend import RETAIN_TTL, Backend, retention
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
from abe_router.backend.features import FEATURES, Feature, Features
from abe_router.backend.health import (
    HealthCheck,
    HealthResult,
    SubscriptionName,
    orphaned_subscriptions,
    unread_keys,
)
from abe_router.backend.subscription import ExclusiveSubscription, Subscription
from abe_router.backend.views import (
    Entry,
    Peeked,
    PeekState,
    SubscriptionStatus,
    next_number,
    read_position,
    read_stored,
)

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
    "next_number",
    "orphaned_subscriptions",
    "read_position",
    "read_stored",
    "retention",
    "unread_keys",
]
