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
from abe_router.backends import make_backend
from abe_router.compat.consume import QueueBackend
from abe_router.compat.consumer import AsyncLoopConsumer, HandlerFunction
from abe_router.compat.load import load_backend
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.errors import (
    AbeRouterError,
    BackendError,
    BackendUnavailable,
    BatchMismatch,
    ConfigError,
    HandlerError,
    IdInvalid,
    KeyInvalid,
    NoRoute,
    PayloadInvalid,
    PayloadMalformed,
    PayloadUnencodable,
    PayloadUnfit,
    PublishError,
    PublishTimeout,
    Reject,
    Retry,
    SchemaFault,
    SchemaInvalid,
    SubscriptionClosed,
    TooManyHops,
    UnknownProvider,
    Violation,
)
from abe_router.messages.message import Duplicate, Message
from abe_router.observe.log_context import LogContext
from abe_router.router import Router
from abe_router.routing.policies import RetryPolicy

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
    "Duplicate",
    "Features",
    "HandlerError",
    "HandlerFunction",
    "IdInvalid",
    "KeyInvalid",
    "LogContext",
    "Message",
    "NoRoute",
    "PayloadInvalid",
    "PayloadMalformed",
    "PayloadUnencodable",
    "PayloadUnfit",
    "PublishError",
    "PublishTimeout",
    "QueueBackend",
    "Reason",
    "Reject",
    "Retry",
    "RetryPolicy",
    "Router",
    "SchemaFault",
    "SchemaInvalid",
    "Severity",
    "Subscription",
    "SubscriptionClosed",
    "SubscriptionStatus",
    "TooManyHops",
    "UnknownProvider",
    "Violation",
    "load_backend",
    "make_backend",
]
