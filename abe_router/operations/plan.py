"""What a reload from one table to another would do: the affected routes and the changed options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from abe_router.operations.routes import format_batch, format_start
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import Schema
from abe_router.text import format_duration, format_rate, redact_url

_DURATIONS = {"timeout", "lease", "drain", "retry.initial", "retry.max"}


@dataclass(frozen=True, slots=True)
class OptionChange:
    """One option of a route, or of the file, that differs between two tables.

    `before` and `after` are its values. `old` and `new` are the values as text, in the form of the routes
    file. The texts are equal if only the content of a named file differs, such as that of a schema.
    """

    field: str
    before: Any
    after: Any

    @property
    def old(self) -> str:
        """The value of the old table, as text."""
        return _text(self.field, self.before)

    @property
    def new(self) -> str:
        """The value of the new table, as text."""
        return _text(self.field, self.after)

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain JSON values."""
        return {"field": self.field, "old": self.old, "new": self.new}

    def __str__(self) -> str:
        return f"{self.field} {self.old} → {self.new}" if self.old != self.new else f"{self.field} edited"


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A route that both tables have, and every option in which it differs."""

    old: Route
    new: Route
    options: tuple[OptionChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain JSON values."""
        return {"route": self.new.name, "changes": [change.to_json() for change in self.options]}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does: routes to start, stop, restart and keep.

    `process` are the changes that take effect only when the worker is restarted.
    """

    start: tuple[Route, ...]
    stop: tuple[Route, ...]
    restart: tuple[RouteChange, ...]
    keep: tuple[Route, ...]
    process: tuple[OptionChange, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "start": [route.name for route in self.start],
            "stop": [route.name for route in self.stop],
            "restart": [change.to_json() for change in self.restart],
            "keep": [route.name for route in self.keep],
            "restart_process": [change.to_json() for change in self.process],
        }


def plan_reload(old: RouteTable, new: RouteTable) -> Plan:
    """Return what a reload from one table to another does."""
    diff = old.diff(new)
    return Plan(
        start=diff.added,
        stop=diff.removed,
        restart=tuple(RouteChange(was, now, tuple(option_changes(was, now))) for was, now in diff.changed),
        keep=diff.kept,
        process=tuple(_process_changes(old, new)),
    )


def option_changes(old: Route, new: Route) -> Iterator[OptionChange]:
    """Yield every option in which two routes with the same name differ. Each part of `retry` is an option."""
    for field in fields(Route):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was == now:
            continue
        if isinstance(was, RetryPolicy):
            for part in fields(RetryPolicy):
                a, b = getattr(was, part.name), getattr(now, part.name)
                if a != b:
                    yield OptionChange(f"retry.{part.name}", a, b)
        else:
            yield OptionChange("schema" if field.name == "bindings" else field.name, was, now)


def _process_changes(old: RouteTable, new: RouteTable) -> Iterator[OptionChange]:
    if old.backend != new.backend:
        yield OptionChange("backend", redact_url(old.backend), redact_url(new.backend))
    if old.prefix != new.prefix:
        yield OptionChange("prefix", old.prefix, new.prefix)


def _text(field: str, value: Any) -> str:
    """Return the value of an option in the form of the routes file."""
    match field, value:
        case "schema", _:
            return ", ".join(dict.fromkeys(binding.schema.name for binding in value)) or "none"
        case "handler", _:
            return str(value.path)
        case "when", Schema():
            return msgspec.json.encode(value.document).decode()
        case "start", float() | int():
            return format_start(value)
        case "batch", Batch():
            return format_batch(value)
        case "rate", float() | int():
            return format_rate(value)
        case "emit", Emit():
            return value.key
        case "prefix", _:
            return repr(value)
        case _, None:
            return "default" if field == "max_deliveries" else "none"
        case _, bool():
            return "true" if value else "false"
        case _, float() | int() if field in _DURATIONS and not math.isinf(value):
            return format_duration(value)
    return str(value)
