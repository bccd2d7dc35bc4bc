"""What a handler is working on, for the log lines that it writes.

The consumer sets context variables in the task that calls the handler. Threads, and tasks that the handler
starts, have copies of them, so a task that outlives its handler keeps the message it was started for.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Protocol

from abe_router.observe.trace_context import trace_id_of

#: Loggers of this package, whose lines are about more than one message.
_OWN = "abe_router"


class DescribedMessage(Protocol):
    """What logs and traces say of a message."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def key(self) -> str:
        """Its routing key."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, of which the trace is logged."""

    @property
    def published_at(self) -> float:
        """The time of its publication, in seconds since the epoch."""

    @property
    def attempt(self) -> int:
        """The number of the attempt."""


class DescribedDelivery(Protocol):
    """What logs say of a delivery."""

    @property
    def message(self) -> DescribedMessage:
        """Its message."""


#: The name of the route, in every task of its slots.
route: ContextVar[str] = ContextVar("abe_router_route")
#: What the handler was called with: one delivery, or those of a batch.
deliveries: ContextVar[Sequence[DescribedDelivery]] = ContextVar("abe_router_deliveries", default=())
#: The trace of the call, if it has a span of its own.
trace_id: ContextVar[str] = ContextVar("abe_router_trace_id", default="")


class LogContext(logging.Filter):
    """Adds to each log record what the handler is working on that writes it. It drops no record.

    The attributes are `route`, `message_id`, `key`, `attempt`, `trace_id`, and `messages`, the number of
    messages of a batch. Of a batch, the others are those of the first message. Outside of handlers they are
    empty. An attribute that the record already has stays as it is.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes."""
        for name, value in _fields(record.name).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def _fields(logger: str) -> Mapping[str, str | int]:
    called_with = deliveries.get()
    if not called_with or logger.partition(".")[0] == _OWN:
        return _NONE
    message = called_with[0].message
    return {
        "route": route.get(""),
        "message_id": message.id,
        "key": message.key,
        "attempt": message.attempt,
        "trace_id": trace_id.get() or trace_id_of(message.headers),
        "messages": len(called_with),
    }


_NONE: Mapping[str, str | int] = {
    "route": "",
    "message_id": "",
    "key": "",
    "attempt": 0,
    "trace_id": "",
    "messages": 0,
}
