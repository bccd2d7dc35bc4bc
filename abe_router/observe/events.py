"""Events: what consumers and the reloader report to listeners.

The code that emits events knows nothing of logs or metrics. Listeners are called in the event loop and must
return quickly. An error of a listener is logged and affects neither the emitter nor other listeners.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from abe_router.diagnostic import Diagnostic

_log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True):
    """Base of all events; times and durations are in seconds."""


class ConsumerStarted(Event, frozen=True):
    """A consumer has started to fetch the messages of its route."""

    route: str
    handler: str


class ConsumerStopped(Event, frozen=True):
    """A consumer has stopped. It released `released` deliveries; `abandoned` handlers were still running."""

    route: str
    released: int
    abandoned: int
    seconds: float


class RouterStopped(Event, frozen=True):
    """All consumers of a router have stopped. `released` and `abandoned` are as in `ConsumerStopped`."""

    routes: int
    released: int
    abandoned: int
    seconds: float


class Handled(Event, frozen=True):
    """A handler has returned after `seconds`."""

    route: str
    message_id: str
    key: str
    attempt: int
    seconds: float


class Skipped(Event, frozen=True):
    """A message was acked without its handler: `why` is `when` (no match) or `invalid` (dropped)."""

    route: str
    message_id: str
    key: str
    why: str


class Retried(Event, frozen=True):
    """An attempt has failed; the next one follows after `delay`.

    `traceback` shows the handler's own frames; it is empty if no handler raised, and for a
    `Reject` or `Retry` without a cause.
    """

    route: str
    message_id: str
    key: str
    attempt: int
    delay: float
    kind: str
    error: str
    traceback: str = ""


class DeadLettered(Event, frozen=True):
    """A message has become a dead letter, or was dropped because the route keeps none (`kept` is False).

    `traceback` is as in `Retried`.
    """

    route: str
    message_id: str
    key: str
    attempts: int
    kind: str
    error: str
    kept: bool = True
    traceback: str = ""


class LeaseLost(Event, frozen=True):
    """The backend refused to settle or renew a delivery.

    Its lease expired, and another worker may handle it too; or the backend lost the lease.
    """

    route: str
    message_id: str
    key: str


class BackendLost(Event, frozen=True):
    """The backend cannot be reached; the next try follows after `delay`.

    A route reports an outage at once, and again after intervals that grow while the outage lasts.
    """

    route: str
    error: str
    delay: float


class BackendBack(Event, frozen=True):
    """The backend answers again after an outage of `seconds`."""

    route: str
    seconds: float


class OrphanedSubscription(Event, frozen=True):
    """No router consumes a subscription of the backend, which holds `messages` and keeps all new ones."""

    route: str
    messages: int


class OverrideBegan(Event, frozen=True):
    """An operator has paused or limited a route. `override` says until when, by whom and why."""

    route: str
    override: str


class OverrideEnded(Event, frozen=True):
    """A route is no longer `effect`, such as `paused`: the time is over, or an operator resumed the route."""

    route: str
    effect: str


class Reloading(Event, frozen=True):
    """An edit without errors is put into force. `Reloaded` follows when every change is carried out."""

    revision: str


class Reloaded(Event, frozen=True):
    """A new route table is in force. Routes are named `key/group`; `number` counts the reloads from 1.

    `changes` describes what a reload changed in routes, keys and options of the file; the first one has none.
    """

    number: int
    revision: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    kept: int
    seconds: float
    changes: tuple[str, ...] = ()


class ConfigWarning(Event, frozen=True):
    """The routes file works, and has a fault of this `code` at `place` that is no error.

    `revision` is that of the table. A reload reports the warnings that the table before it did not have.
    """

    code: str
    place: str
    text: str
    revision: str

    @classmethod
    def all_of(cls, diagnostics: Iterable[Diagnostic], revision: str) -> Sequence[ConfigWarning]:
        """Return the event of each warning of a table."""
        return [cls(d.code, f"{d.path}:{d.line}:{d.column}", d.message, revision) for d in diagnostics]


class ReloadRejected(Event, frozen=True):
    """An edit has errors; the table in force stays."""

    diagnostics: tuple[Diagnostic, ...]


class RestartNeeded(Event, frozen=True):
    """A change takes effect only after a restart of the process, such as a change of handler code."""

    what: str
    path: Path


Listener = Callable[[Event], None]
#: A listener, and the kinds of events that it wants.
Subscribed = tuple[tuple[type[Event], ...], Listener]


class Events:
    """Passes each event to the listeners of its kind."""

    def __init__(self, listeners: Sequence[Subscribed] = ()) -> None:
        self._listeners = tuple(listeners)
        #: Whether a listener wants `Handled`. The hot path checks this before it creates the event.
        self.wants_handled = self.wanted(Handled)

    def wanted(self, kind: type[Event]) -> bool:
        """Return whether a listener wants events of `kind`."""
        return any(issubclass(kind, kinds) for kinds, _ in self._listeners)

    def emit(self, event: Event) -> None:
        """Call each listener that wants the event; log the errors of listeners."""
        for kinds, listener in self._listeners:
            if isinstance(event, kinds):
                try:
                    listener(event)
                except Exception:  # noqa: BLE001  a listener must not break the code that it observes
                    with suppress(Exception):  # `logging` raises when its own stream, `sys.stderr`, is closed
                        _log.exception("a listener failed on %s", type(event).__name__)
