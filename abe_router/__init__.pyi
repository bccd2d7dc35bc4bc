# The public names, for type checkers; at run time they are imported on demand.

from abe_router.backend import (
    Backend,
    DeadLetter,
    Delivery,
    Features,
    Reason,
    Subscription,
    SubscriptionStatus,
)
from abe_router.backends import load_backend, make_backend
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.embed import Router
from abe_router.errors import (
    AbeRouterError,
    BackendError,
    BackendUnavailable,
    BatchMismatch,
    ConfigError,
    HandlerError,
    KeyInvalid,
    NoRoute,
    PayloadInvalid,
    PayloadMalformed,
    PayloadUnencodable,
    PayloadUnfit,
    PublishError,
    Reject,
    Retry,
    SchemaFault,
    SchemaInvalid,
    TooManyHops,
    UnknownProvider,
    Violation,
)
from abe_router.loop import AsyncLoopConsumer, HandlerFunction
from abe_router.message import Message
from abe_router.retry import RetryPolicy

__all__ = [
    "AbeRouterError",
    "AsyncLoopConsumer",
    "Backend",
    "BackendError",
    "BackendUnavailable",
    "BatchMismatch",
    "ConfigError",
    "DeadLetter",
    "Delivery",
    "Diagnostic",
    "Features",
    "HandlerError",
    "HandlerFunction",
    "KeyInvalid",
    "Message",
    "NoRoute",
    "PayloadInvalid",
    "PayloadMalformed",
    "PayloadUnencodable",
    "PayloadUnfit",
    "PublishError",
    "Reason",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Router",
    "SchemaFault",
    "SchemaInvalid",
    "Severity",
    "Subscription",
    "SubscriptionStatus",
    "TooManyHops",
    "UnknownProvider",
    "Violation",
    "load_backend",
    "make_backend",
]
