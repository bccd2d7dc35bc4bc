"""Message routing: plain Python handlers, one YAML file of wiring, edits applied live.

The public names are imported on demand, so that `import abe_router` costs nothing.
"""

from importlib import import_module
from typing import Any

#: The public names, and the module that defines each.
_HOMES = {
    "AbeRouterError": "abe_router.errors",
    "AsyncLoopConsumer": "abe_router.compat.consumer",
    "Backend": "abe_router.backend",
    "BackendError": "abe_router.errors",
    "BackendUnavailable": "abe_router.errors",
    "BatchMismatch": "abe_router.errors",
    "ConfigError": "abe_router.errors",
    "DeadLetter": "abe_router.backend",
    "Delivery": "abe_router.backend",
    "Diagnostic": "abe_router.diagnostic",
    "Duplicate": "abe_router.messages.message",
    "Features": "abe_router.backend",
    "HandlerError": "abe_router.errors",
    "HandlerFunction": "abe_router.compat.consumer",
    "IdInvalid": "abe_router.errors",
    "KeyInvalid": "abe_router.errors",
    "LogContext": "abe_router.observe.log_context",
    "Message": "abe_router.messages.message",
    "NoRoute": "abe_router.errors",
    "PayloadInvalid": "abe_router.errors",
    "PayloadMalformed": "abe_router.errors",
    "PayloadUnencodable": "abe_router.errors",
    "PayloadUnfit": "abe_router.errors",
    "PublishError": "abe_router.errors",
    "PublishTimeout": "abe_router.errors",
    "QueueBackend": "abe_router.compat.consume",
    "Reason": "abe_router.backend",
    "Reject": "abe_router.errors",
    "Retry": "abe_router.errors",
    "RetryPolicy": "abe_router.routing.policies",
    "Router": "abe_router.router",
    "SchemaFault": "abe_router.errors",
    "SchemaInvalid": "abe_router.errors",
    "Severity": "abe_router.diagnostic",
    "Subscription": "abe_router.backend",
    "SubscriptionClosed": "abe_router.errors",
    "SubscriptionStatus": "abe_router.backend",
    "TooManyHops": "abe_router.errors",
    "UnknownProvider": "abe_router.errors",
    "Violation": "abe_router.errors",
    "load_backend": "abe_router.compat.load",
    "make_backend": "abe_router.backends",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
