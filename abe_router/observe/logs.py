"""Log lines for events: one sentence each, as text for a person or as JSON for a machine.

A line names routes, keys and message ids, and never contains a payload or a credential: everything between
`://` and `@` is masked. Keys, ids and errors come from outside: they are escaped, so that they can neither
forge a line nor control a terminal.

The message of a record is complete, with the route and the diagnostics, so that the formatters of a program
that embeds the router show both. The formatters of this module read the event instead, which is the
attribute `event` of the record, and arrange its parts themselves.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Iterator
from typing import TextIO, assert_never

import msgspec

from abe_router.diagnostic import render_all
from abe_router.observe.events import (
    BackendBack,
    BackendLost,
    ConfigWarning,
    ConsumerStarted,
    ConsumerStopped,
    DeadLettered,
    Event,
    Handled,
    LeaseLost,
    OrphanedSubscription,
    OverrideBegan,
    OverrideEnded,
    Reloaded,
    Reloading,
    ReloadRejected,
    RestartNeeded,
    Retried,
    RouterStopped,
    Skipped,
    Subscribed,
)
from abe_router.observe.log_context import LogContext
from abe_router.observe.log_writer import make_handler
from abe_router.text import counted, format_duration, mask_credentials, printable

Logged = (
    ConsumerStarted
    | ConsumerStopped
    | Skipped
    | Retried
    | DeadLettered
    | LeaseLost
    | BackendLost
    | BackendBack
    | OrphanedSubscription
    | OverrideBegan
    | OverrideEnded
    | Reloading
    | Reloaded
    | ReloadRejected
    | RestartNeeded
    | RouterStopped
    | ConfigWarning
)

#: Further log lines about the same outage are suppressed for this time, in seconds.
OUTAGE_QUIET = 5.0
#: Most routes that the line about a start names.
MAX_STARTED = 8
#: Longest text from outside in one line, in characters.
MAX_TEXT = 500

#: A line that begins with the error of a payload, also in a traceback: one that a handler emits or publishes.
_INVALID = re.compile(r"[\s|+]*(?:abe_router\.errors\.)?Payload(?:Invalid|Unfit): ")

_log = logging.getLogger("abe_router")
_TINTS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


def describe(event: Logged | Handled) -> tuple[int, str]:
    """Return the level of an event, and a sentence about it that does not name its route."""
    match event:
        case ConsumerStarted():
            return logging.DEBUG, f"started, handler {event.handler}"
        case ConsumerStopped():
            return logging.WARNING if event.abandoned else logging.DEBUG, _stopped(event)
        case RouterStopped():
            return logging.INFO, f"{counted(event.routes, 'route')} {_stopped(event)}"
        case Handled():
            return logging.DEBUG, f"handled {_message_of(event)} in {format_duration(event.seconds)}"
        case Skipped(why="when"):
            return logging.DEBUG, f"skipped {_message_of(event)}: `when` does not match"
        case Skipped():
            return logging.WARNING, f"dropped {_message_of(event)}: {event.why}"
        case Retried():
            again = f"attempt {event.attempt} failed, next in {format_duration(event.delay)}"
            return logging.WARNING, f"{again}: {_message_of(event)}: {event.kind}: {event.error}"
        case DeadLettered():
            end = "dead letter" if event.kept else "dropped, the route keeps no dead letters,"
            tries = counted(event.attempts, "attempt")
            return logging.ERROR, f"{end} after {tries}: {_message_of(event)}: {event.kind}: {event.error}"
        case LeaseLost():
            text = "another worker may handle it too, or the backend lost its lease"
            return logging.WARNING, f"lost the lease of {_message_of(event)}: {text}"
        case BackendLost():
            return logging.ERROR, f"backend lost, next try in {format_duration(event.delay)}: {event.error}"
        case BackendBack():
            return logging.INFO, f"backend back after {format_duration(event.seconds)}"
        case OrphanedSubscription():
            held = f"no router consumes it: it holds {counted(event.messages, 'message')} and keeps new ones"
            return logging.WARNING, f"{held}; put the route back, or `abe-router drop {event.route}`"
        case OverrideBegan():
            return logging.WARNING, event.override
        case OverrideEnded():
            return logging.INFO, f"no longer {event.effect}"
        case Reloading():
            return logging.DEBUG, f"an edit without errors is put into force: revision {event.revision}"
        case Reloaded(number=1):
            names = ", ".join(event.added)
            running = f"running {counted(len(event.added), 'route')}"
            return logging.INFO, f"{running}: {names}" if 0 < len(event.added) <= MAX_STARTED else running
        case Reloaded():
            text = "; ".join([*event.changes, f"{counted(event.kept, 'route')} kept"])
            return logging.INFO, f"reload {event.number} in {format_duration(event.seconds)}: {text}"
        case ReloadRejected():
            return logging.ERROR, "edit rejected, nothing changed"
        case ConfigWarning():
            return logging.WARNING, f"{event.place}: {event.text} ({event.code})"
        case RestartNeeded():
            return logging.WARNING, f"a change of {event.what} takes effect after a restart: {event.path}"
    assert_never(event)


def _stopped(event: ConsumerStopped | RouterStopped) -> str:
    left = f", {event.abandoned} still running" if event.abandoned else ""
    return f"stopped in {format_duration(event.seconds)}, {event.released} released{left}"


def _message_of(event: Handled | Skipped | Retried | DeadLettered | LeaseLost) -> str:
    return f"{event.key} {event.message_id}"


class OutageThrottle:
    """Limits the log lines about one outage to its beginning, its end, and one now and then.

    An outage usually affects all routes. Routes that report the same error are in the same outage.
    """

    def __init__(self) -> None:
        self._error_of: dict[str, str] = {}
        self._logged_at: dict[str, float] = {}

    def passes(self, event: Event) -> bool:
        """Return whether the event is to be logged; only events about outages are suppressed."""
        if isinstance(event, BackendLost):
            now = time.monotonic()
            self._error_of[event.route] = event.error
            if now < self._logged_at.get(event.error, -math.inf) + OUTAGE_QUIET:
                return False
            self._logged_at[event.error] = now
        elif isinstance(event, BackendBack) and event.route in self._error_of:
            logged_at = self._logged_at.pop(self._error_of.pop(event.route), None)
            if not self._error_of:
                self._logged_at.clear()
            return logged_at is not None
        return True


def log_event(event: Event) -> None:
    """Log an event; ignore those that have no sentence."""
    if isinstance(event, DeadLettered | Retried):
        event = _without_values(event)
    if isinstance(event, Logged | Handled):
        level, sentence = describe(event)
        if _log.isEnabledFor(level):
            extra = {"event": event, "sentence": sentence}
            _log.log(level, "%s", _Complete(event, sentence), extra=extra)


def _without_values(event: DeadLettered | Retried) -> DeadLettered | Retried:
    """Return the event without values of payloads in its error and its traceback."""
    error = without_value(event.error, event.kind == "invalid")
    trace = event.traceback
    if "Payload" in trace:
        trace = "\n".join(map(without_value, trace.split("\n")))
    if error == event.error and trace == event.traceback:
        return event
    return msgspec.structs.replace(event, error=error, traceback=trace)


def without_value(line: str, of_payload: bool = False) -> str:
    """Return what says that a payload breaks its schema without the value that was found.

    The value is a part of the payload. The pointer and the expectation are not.
    """
    return line.partition(", found ")[0] if of_payload or _INVALID.match(line) else line


class _Complete:
    """The sentence with the route in front and the diagnostics below it, fit for any formatter.

    It is made when it is asked for: the formatters of this module do not.
    """

    def __init__(self, event: Event, sentence: str) -> None:
        self._event, self._sentence = event, sentence

    def __str__(self) -> str:
        event, route = self._event, getattr(self._event, "route", "")
        text = printable(_bounded(f"{route}: {self._sentence}" if route else self._sentence))
        if isinstance(event, ReloadRejected):
            return "\n".join([text, *map(printable, render_all(event.diagnostics).splitlines())])
        return "\n".join([text, *_indented(getattr(event, "traceback", ""))])


def _indented(traceback: str) -> Iterator[str]:
    """Yield the lines of a traceback, indented, so that they cannot pass for log lines."""
    return (f"  {printable(mask_credentials(line))}" for line in traceback.splitlines())


def log_listener(level: int, *, without: tuple[type[Event], ...] = ()) -> Subscribed:
    """Return a listener that logs events from `level` on, except those of the kinds `without`.

    At debug level it logs each `Handled`, and every route of an outage.
    """
    debug, throttle = level <= logging.DEBUG, OutageThrottle()

    def listener(event: Event) -> None:
        if not isinstance(event, without) and (debug or throttle.passes(event)):
            log_event(event)

    return (Event,) if debug else Logged.__args__, listener


class PlainFormatter(logging.Formatter):
    """Formats a record as its level and its message, for short-lived commands."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{record.levelname.lower()}: {printable(_bounded(_sentence(record)))}"


class TextFormatter(logging.Formatter):
    """Formats a record as one short line: time of day, level, route, sentence. Further lines are indented.

    If `worker` is not 0, this number of the worker process precedes the route. A line of a handler ends with
    what the handler is working on.
    """

    def __init__(self, *, color: bool = False, worker: int = 0) -> None:
        super().__init__()
        self._color, self._width = color, 24
        self._worker = f"[{worker}] " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; the column of routes is as wide as the longest route so far."""
        event = getattr(record, "event", None)
        context = {} if isinstance(event, Event) else _context_of(record)
        route = getattr(event, "route", "") if isinstance(event, Event) else record.name
        route = printable(str(context.pop("route", route)))
        self._width = min(48, max(self._width, len(route)))
        level = record.levelname.lower()
        label = f"\033[{_TINTS.get(level, '0')}m{level:<8}\033[0m" if self._color else f"{level:<8}"
        text = _bounded(_sentence(record))
        if context:
            said = " ".join(f"{name}={value}" for name, value in context.items())
            text = f"{record.name}: {text} [{said}]"
        text = printable(text)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        route = f"{route:<{self._width}} " if route else ""
        line = f"{clock} {label} {self._worker}{route}{text}"
        if isinstance(event, ReloadRejected):
            return f"{line}\n{render_all(event.diagnostics, color=self._color)}"
        trace = getattr(event, "traceback", "") if isinstance(event, Event) else ""
        if record.exc_info:
            trace = self.formatException(record.exc_info)
        return "\n".join([line, *_indented(trace)])


class JSONFormatter(logging.Formatter):
    """Formats a record as one JSON object: `ts` (UTC), `level`, `event`, the event's own fields, `message`.

    If `worker` is not 0, there is a field `worker` with this number of the worker process.
    """

    def __init__(self, *, worker: int = 0) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; for a record without an event, `event` is `log` and `logger` names its logger."""
        event = getattr(record, "event", None)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "ts": f"{clock}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            **self._worker,
        }
        if isinstance(event, ReloadRejected):
            line |= {"event": "reload_rejected", "diagnostics": [d.to_json() for d in event.diagnostics]}
        elif isinstance(event, Event):
            values = msgspec.structs.asdict(event)
            line["event"] = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
            trace = values.pop("traceback", "")
            line |= {n: _bounded(v) if isinstance(v, str) else v for n, v in values.items()}
            if trace:
                line["traceback"] = mask_credentials(trace)
        else:
            line |= {"event": "log", "logger": record.name, **_context_of(record)}
        line["message"] = _bounded(_sentence(record))
        if record.exc_info:
            line["traceback"] = mask_credentials(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def _context_of(record: logging.LogRecord) -> dict[str, str | int]:
    """Return what the handler is working on that has written the record; see `LogContext`.

    The number of messages is left out if it is 1.
    """
    if not getattr(record, "message_id", ""):
        return {}
    names = ("route", "message_id", "key", "attempt", "trace_id", "messages")
    values = {name: getattr(record, name, "") for name in names}
    values["messages"] = values["messages"] if values["messages"] != 1 else ""
    return {n: _bounded(v) if isinstance(v, str) else v for n, v in values.items() if v}


def _sentence(record: logging.LogRecord) -> str:
    """Return the sentence of the record's event, or the message of a record that has none."""
    sentence: str | None = getattr(record, "sentence", None)
    return record.getMessage() if sentence is None else sentence


def _bounded(text: str) -> str:
    text = mask_credentials(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def start_logging(
    stream: TextIO, level: int, formatter: logging.Formatter, *, in_thread: bool = False
) -> None:
    """Send the log records of all loggers to `stream`, from `level` on.

    With `in_thread`, a thread writes them, so that a stream that accepts nothing blocks nothing else.
    """
    handler = make_handler(stream) if in_thread else logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(LogContext())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("asyncio").setLevel(max(level, logging.WARNING))
