"""Log lines made of events: one sentence each, as text for a person or as JSON for a machine.

A line names routes, keys and message ids, never a payload, and never a credential: whatever stands
between `://` and `@` is masked. Text that others chose (keys, ids, errors) cannot forge a line or steer a
terminal: what is not printable is escaped.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TextIO, assert_never

from abe_router.diagnostic import render_all
from abe_router.observe.events import (
    BackendBack,
    BackendLost,
    ConsumerStarted,
    ConsumerStopped,
    DeadLettered,
    Event,
    Handled,
    LeaseLost,
    OrphanedSubscription,
    Reloaded,
    ReloadRejected,
    RestartNeeded,
    Retried,
    Skipped,
)
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
    | Reloaded
    | ReloadRejected
    | RestartNeeded
)

#: How long what many routes tell of one outage is not told again, in seconds.
OUTAGE_QUIET = 5.0
#: Longest piece of foreign text in one line, in characters.
MAX_TEXT = 500

_log = logging.getLogger("abe_router")
_TINTS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}


def describe(event: Logged | Handled) -> tuple[int, str]:
    """Return the level of an event and a sentence that says what happened, without its route."""
    match event:
        case ConsumerStarted():
            return logging.INFO, f"started, handler {event.handler}"
        case ConsumerStopped():
            left = f", {event.abandoned} still running" if event.abandoned else ""
            level = logging.WARNING if event.abandoned else logging.INFO
            return level, f"stopped in {format_duration(event.seconds)}, {event.released} released{left}"
        case Handled():
            return logging.DEBUG, f"handled {_which(event)} in {format_duration(event.seconds)}"
        case Skipped(why="when"):
            return logging.DEBUG, f"skipped {_which(event)}: `when` does not match"
        case Skipped():
            return logging.WARNING, f"dropped {_which(event)}: {event.why}"
        case Retried():
            again = f"attempt {event.attempt} failed, next in {format_duration(event.delay)}"
            return logging.WARNING, f"{again}: {_which(event)}: {event.kind}: {event.error}"
        case DeadLettered():
            end = "dead letter" if event.kept else "dropped, the route keeps no dead letters,"
            tries = counted(event.attempts, "attempt")
            return logging.ERROR, f"{end} after {tries}: {_which(event)}: {event.kind}: {event.error}"
        case LeaseLost():
            return logging.WARNING, f"lost the lease of {_which(event)}: it may be handled twice"
        case BackendLost():
            return logging.ERROR, f"backend lost, next try in {format_duration(event.delay)}: {event.error}"
        case BackendBack():
            return logging.INFO, f"backend back after {format_duration(event.seconds)}"
        case OrphanedSubscription():
            held = f"nobody serves it, and it holds {counted(event.messages, 'message')} and those to come"
            return logging.WARNING, f"{held}: put it back, or `abe-router drop {event.route}`"
        case Reloaded(number=1):
            return logging.INFO, f"running {counted(len(event.added), 'route')}"
        case Reloaded():
            told = ((event.added, "added"), (event.removed, "removed"), (event.changed, "changed"))
            did = [f"{what} {', '.join(names)}" for names, what in told if names]
            said = "; ".join([*did, f"{event.kept} kept"])
            return logging.INFO, f"reload {event.number} in {format_duration(event.seconds)}: {said}"
        case ReloadRejected():
            return logging.ERROR, "edit rejected, nothing changed"
        case RestartNeeded():
            return logging.WARNING, f"restart to bring {event.what} into force: {event.path}"
    assert_never(event)


def _which(event: Handled | Skipped | Retried | DeadLettered | LeaseLost) -> str:
    return f"{event.key} {event.message_id}"


class Outages:
    """Makes few lines of what all routes tell of one outage: its beginning, its end, and now and then a word.

    What cuts off one route mostly cuts off a thousand. Routes that say the same are in one outage.
    """

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._told_at: dict[str, float] = {}

    def is_news(self, event: Event) -> bool:
        """Say whether the event deserves a line of its own."""
        if isinstance(event, BackendLost):
            now = time.monotonic()
            self._said[event.route] = event.error
            if now < self._told_at.get(event.error, -math.inf) + OUTAGE_QUIET:
                return False
            self._told_at[event.error] = now
        elif isinstance(event, BackendBack) and event.route in self._said:
            told = self._told_at.pop(self._said.pop(event.route), None)
            if not self._said:
                self._told_at.clear()
            return told is not None
        return True


def log_event(event: Event) -> None:
    """Write the line of an event; events that have none are passed over."""
    if isinstance(event, DeadLettered) and event.kind == "invalid":
        # What a violation found is a piece of the payload; where, and what was expected, is told.
        event = replace(event, error=event.error.partition(", found ")[0])
    if isinstance(event, Logged | Handled):
        level, sentence = describe(event)
        if _log.isEnabledFor(level):
            _log.log(level, "%s", sentence, extra={"told": event})


def log_listener(
    level: int, *, without: tuple[type[Event], ...] = ()
) -> tuple[tuple[type[Event], ...], Callable[[Event], None]]:
    """Return the listener for Events that logs from `level` on, but nothing of the kinds `without`.

    Only debug asks for each Handled, and has a line of each route in an outage.
    """
    debug, outages = level <= logging.DEBUG, Outages()

    def listener(event: Event) -> None:
        if not isinstance(event, without) and (debug or outages.is_news(event)):
            log_event(event)

    return (Event,) if debug else Logged.__args__, listener


class PlainFormatter(logging.Formatter):
    """The level and the message alone, for commands that end soon."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{record.levelname.lower()}: {printable(_bounded(record.getMessage()))}"


class TextFormatter(logging.Formatter):
    """One short line: time of day, level, route, sentence. Continuation lines are indented.

    With `worker` the number of the worker stands before the route.
    """

    def __init__(self, *, color: bool = False, worker: int = 0) -> None:
        super().__init__()
        self._color, self._width = color, 24
        self._worker = f"[{worker}] " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; routes keep to one column, as wide as the widest so far."""
        event = getattr(record, "told", None)
        route = printable(getattr(event, "route", "") if event else record.name)
        self._width = min(48, max(self._width, len(route)))
        level = record.levelname.lower()
        label = f"\033[{_TINTS.get(level, '0')}m{level:<8}\033[0m" if self._color else f"{level:<8}"
        text = printable(_bounded(record.getMessage()))
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        route = f"{route:<{self._width}} " if route else ""
        line = f"{clock} {label} {self._worker}{route}{text}"
        if isinstance(event, ReloadRejected):
            return f"{line}\n{render_all(event.diagnostics, color=self._color)}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join([line, *(f"  {printable(mask_credentials(row))}" for row in trace.splitlines())])


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `ts` (UTC), `level`, `event`, the event's own fields, `message`.

    With `worker` there is the number of the worker too.
    """

    def __init__(self, *, worker: int = 0) -> None:
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a record that is no event of ours has `event` of `log` and its logger's name."""
        event = getattr(record, "told", None)
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "ts": f"{clock}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            **self._worker,
        }
        if isinstance(event, ReloadRejected):
            line |= {"event": "reload_rejected", "diagnostics": [d.to_json() for d in event.diagnostics]}
        elif isinstance(event, Event):
            values = {field.name: getattr(event, field.name) for field in fields(event)}
            line["event"] = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
            line |= {n: _bounded(v) if isinstance(v, str) else v for n, v in values.items()}
        else:
            line |= {"event": "log", "logger": record.name}
        line["message"] = _bounded(record.getMessage())
        if record.exc_info:
            line["traceback"] = mask_credentials(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def _bounded(text: str) -> str:
    text = mask_credentials(text)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def start_logging(stream: TextIO, level: int, formatter: logging.Formatter) -> None:
    """Send all log records from `level` on to `stream`, the user's own too."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level, force=True)
    for chatty in ("asyncio", "watchfiles"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
