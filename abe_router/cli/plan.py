"""`abe-router plan`: what a reload from one file to another would do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from abe_router.cli.access import read_table
from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK
from abe_router.cli.options import json_option
from abe_router.cli.routes import batch_text, start_text
from abe_router.cli.screen import show_json, show_table
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import Schema
from abe_router.text import format_duration, format_rate, redact_url

_DURATIONS = {"timeout", "lease", "drain", "retry.initial", "retry.max"}


@dataclass(frozen=True, slots=True)
class Change:
    """One option of a route, or of the file, that differs."""

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.field} {self.old} → {self.new}" if self.old != self.new else f"{self.field} edited"


@as_command(
    "plan",
    """
    abe-router plan routes.yaml edited.yaml
    git show HEAD:routes.yaml > old.yaml && abe-router plan old.yaml routes.yaml
    """,
)
@click.argument("old", type=click.Path(path_type=Path, readable=False))
@click.argument("new", type=click.Path(path_type=Path, readable=False))
@json_option
def command(old: Path, new: Path, json: bool) -> int:
    """Show which routes a reload from OLD to NEW would start, stop, restart and keep.

    Handlers are not imported. The exit code is 0 whatever the plan is.
    """
    before, after = read_table(old), read_table(new)
    diff = before.diff(after)
    restart = [(route, list(changes(was, route))) for was, route in diff.changed]
    process = list(_process_changes(before, after))
    if json:
        show_json(
            {
                "start": [route.name for route in diff.added],
                "stop": [route.name for route in diff.removed],
                "restart": [{"route": route.name, "changes": found} for route, found in restart],
                "keep": [route.name for route in diff.kept],
                "restart_process": process,
            }
        )
        return OK
    rows = [("start", route.name, route.handler.path) for route in diff.added]
    rows += [("stop", route.name, "") for route in diff.removed]
    rows += [("restart", route.name, ", ".join(map(str, found))) for route, found in restart]
    rows += [("keep", route.name, "") for route in diff.kept]
    rows += [("restart process", "", str(change)) for change in process]
    show_table(("does", "route", "why"), rows)
    return OK


def changes(old: Route, new: Route) -> Iterator[Change]:
    """Yield every option in which two routes of one name differ."""
    for field in fields(Route):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was == now:
            continue
        if isinstance(was, RetryPolicy):
            for part in fields(RetryPolicy):
                a, b = getattr(was, part.name), getattr(now, part.name)
                if a != b:
                    name = f"retry.{part.name}"
                    yield Change(name, _text(name, a), _text(name, b))
        else:
            name = "schema" if field.name == "bindings" else field.name
            yield Change(name, _text(name, was), _text(name, now))


def _process_changes(old: RouteTable, new: RouteTable) -> Iterator[Change]:
    """Yield what only a restart of the worker brings into force."""
    if old.backend != new.backend:
        yield Change("backend", redact_url(old.backend), redact_url(new.backend))
    if old.prefix != new.prefix:
        yield Change("prefix", repr(old.prefix), repr(new.prefix))


def _text(name: str, value: Any) -> str:
    match name, value:
        case "schema", _:
            return ", ".join(dict.fromkeys(contract.schema.name for contract in value)) or "none"
        case "handler", _:
            return str(value.path)
        case "when", Schema():
            import msgspec

            return msgspec.json.encode(value.document).decode()
        case "start", float() | int():
            return start_text(value)
        case "batch", Batch():
            return batch_text(value)
        case "rate", float() | int():
            return format_rate(value)
        case "emit", Emit():
            return value.key
        case _, float() | int() if name in _DURATIONS and not math.isinf(value):
            return format_duration(value)
        case _, None:
            return "default" if name == "max_deliveries" else "none"
        case _, bool():
            return "true" if value else "false"
    return str(value)
