"""What happened, told to whoever listens.

Consumers and the reloader emit events and know nothing of logs or metrics. A listener is called in the
event loop and must be quick; one that raises is logged and breaks nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from abe_router.diagnostic import Diagnostic

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; times and durations are in seconds."""


@dataclass(frozen=True, slots=True)
class ConsumerStarted(Event):
    """A consumer began to fetch for its route."""

    route: str
    handler: str


@dataclass(frozen=True, slots=True)
class ConsumerStopped(Event):
    """A consumer stopped; `released` deliveries were handed back, `abandoned` were still running."""

    route: str
    released: int
    abandoned: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Handled(Event):
    """A handler returned; `seconds` is how long it ran."""

    route: str
    message_id: str
    key: str
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Skipped(Event):
    """A message was settled without its handler; `why` is `when` (no match) or `invalid` (dropped)."""

    route: str
    message_id: str
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """An attempt failed and another follows after `delay`."""

    route: str
    message_id: str
    key: str
    attempt: int
    delay: float
    kind: str
    error: str


@dataclass(frozen=True, slots=True)
class DeadLettered(Event):
    """A message ended among the dead letters, or was dropped where the route keeps none."""

    route: str
    message_id: str
    key: str
    attempts: int
    kind: str
    error: str
    kept: bool = True


@dataclass(frozen=True, slots=True)
class LeaseLost(Event):
    """A settle or heartbeat was refused: someone else holds the message now, and it may run twice."""

    route: str
    message_id: str
    key: str


@dataclass(frozen=True, slots=True)
class BackendLost(Event):
    """The backend cannot be reached; tried again after `delay`.

    A route tells of an outage at once, and while it lasts again after ever longer silences.
    """

    route: str
    error: str
    delay: float


@dataclass(frozen=True, slots=True)
class BackendBack(Event):
    """The backend answers again after `seconds`."""

    route: str
    seconds: float


@dataclass(frozen=True, slots=True)
class OrphanedSubscription(Event):
    """A subscription of the backend that nobody serves holds so many messages, and keeps those to come."""

    route: str
    messages: int


@dataclass(frozen=True, slots=True)
class Reloaded(Event):
    """A new route table is in force: the receipt of a reload. Routes are named `key/group`."""

    number: int
    revision: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReloadRejected(Event):
    """An edit has faults: nothing changed."""

    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class RestartNeeded(Event):
    """A change that only a restart of the process brings into force, such as handler code."""

    what: str
    path: Path


Listener = Callable[[Event], None]


class Events:
    """Hands each event to the listeners that want its kind."""

    def __init__(self, listeners: Sequence[tuple[tuple[type[Event], ...], Listener]] = ()) -> None:
        self._listeners = tuple(listeners)
        #: Whether anyone wants an event for each handled message; the hot path asks before making one.
        self.wants_handled = self.wanted(Handled)

    def wanted(self, kind: type[Event]) -> bool:
        """Say whether any listener wants events of `kind`."""
        return any(issubclass(kind, kinds) for kinds, _ in self._listeners)

    def emit(self, event: Event) -> None:
        """Call each listener that wants the event."""
        for kinds, listener in self._listeners:
            if isinstance(event, kinds):
                try:
                    listener(event)
                except Exception:  # noqa: BLE001  watching cannot break work
                    _log.exception("a listener failed on %s", type(event).__name__)
