"""The difference between two tables in the words of the routes file: routes, keys and options of the file.

`plan`, `history`, the log line of a reload, the API and the page show this one description.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

import msgspec

from abe_router.messages.dedupe import Deduplication
from abe_router.routing.policies import Batch, Emit, RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.schema import Schema
from abe_router.text import format_duration, format_rate, format_time, redact_url

_DURATIONS = {"timeout", "lease", "drain", "retry.initial", "retry.max", "dedupe", "retain"}
#: The options of the file that take effect when the process is restarted.
RESTART = ("backend", "prefix")
#: Names that one line lists; of more it shows the number.
MAX_NAMES = 8


class OptionChange(msgspec.Struct, frozen=True):
    """One option that differs between two tables, with its values in the form of the routes file.

    The values are equal if only the content of a named file differs, such as that of a schema, or if they
    are not shown. `restart` says whether the change takes effect only when the process is restarted.
    """

    field: str
    old: str
    new: str
    restart: bool = False

    def __str__(self) -> str:
        text = f"{self.field} {self.old} -> {self.new}" if self.old != self.new else f"{self.field} edited"
        return f"{text}, needs a restart" if self.restart else text


class TableChanges(msgspec.Struct, frozen=True):
    """What an edit changes, by name.

    `routes` and `keys` have the changed options of the routes and keys that both tables have, and `file`
    those of the file itself. A key or route whose description, tags or owner differ is named in `keys`.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    routes: Mapping[str, tuple[OptionChange, ...]] = {}
    keys_added: tuple[str, ...] = ()
    keys_removed: tuple[str, ...] = ()
    keys: Mapping[str, tuple[OptionChange, ...]] = {}
    file: tuple[OptionChange, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield each change as a short text; none if nothing differs. Of many names it has the number."""
        for what, names in (("added", self.added), ("removed", self.removed)):
            if names:
                yield f"{what} {_listed(names, 'route')}"
        if self.routes:
            changed = [f"{name} ({_joined(options)})" for name, options in self.routes.items()]
            yield f"changed {_listed(changed, 'route')}"
        for what, names in (("added", self.keys_added), ("removed", self.keys_removed)):
            if names:
                noun = "" if len(names) > MAX_NAMES else "key " if len(names) == 1 else "keys "
                yield f"{what} {noun}{_listed(names, 'key')}"
        said = [f"{subject(name)} {name}: {_joined(options)}" for name, options in self.keys.items()]
        yield from said if len(said) <= MAX_NAMES else [f"changed {len(said):,} keys"]
        yield from map(str, self.file)


def difference(old: RouteTable, new: RouteTable) -> TableChanges:
    """Return what an edit from one table to another changes."""
    diff = old.diff(new)
    was, now = _keys(old), _keys(new)
    shared = {name: tuple(_changes(was[name], now[name])) for name in now if name in was}
    return TableChanges(
        added=tuple(route.name for route in diff.added),
        removed=tuple(route.name for route in diff.removed),
        routes={after.name: tuple(_route_changes(before, after)) for before, after in diff.changed},
        keys_added=tuple(key for key in new.keys if key not in was),
        keys_removed=tuple(key for key in old.keys if key not in now),
        keys={name: changes for name, changes in shared.items() if changes},
        file=tuple(_changes(_file(old), _file(new))),
    )


def subject(name: str) -> str:
    """Return what a name stands for: a key, or a route."""
    return "route" if "/" in name else "key"


def format_start(start: float) -> str:
    """Return where a group begins, in the form of the routes file."""
    if start == 0:
        return "earliest"
    return "latest" if math.isinf(start) else format_time(start)


def format_batch(batch: Batch) -> str:
    """Return the size and the wait of a batch as text: `up to 500 in 1s`."""
    return f"up to {batch.size:,} in {format_duration(batch.wait)}"


def _keys(table: RouteTable) -> dict[str, dict[str, Any]]:
    """Return the options of each key, and the metadata of each route."""
    bound = {binding.pattern: (binding,) for binding in table.bindings}
    consumed = {route.key for route in table.routes}
    found: dict[str, dict[str, Any]] = {}
    for key in table.keys:
        deduplication = table.deduplications.get(key, Deduplication())
        found[key] = {
            "schema": bound.get(key, ()),
            "id": deduplication.source or None,
            "dedupe": deduplication.window or None,
            "retain": table.retain.get(key),
            "consumers": "some" if key in consumed else "none, it is only published",
        }
    for name in (*table.keys, *table.by_name):
        found.setdefault(name, {}).update(asdict(table.metadata[name]) if name in table.metadata else {})
    return found


def _file(table: RouteTable) -> dict[str, Any]:
    options = {f"http.{name}": value for name, value in _parts(table.http)}
    options |= {f"trace.{name}": value for name, value in _parts(table.trace)}
    return options | {
        "backend": table.backend,
        "prefix": table.prefix,
        "formats": table.formats,
        "unrouted": table.unrouted,
    }


def _parts(options: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(options) if options is not None else ():
        yield field.name, getattr(options, field.name)


def _route_changes(old: Route, new: Route) -> Iterator[OptionChange]:
    """Yield every option in which two routes differ. Each part of `retry` is an option."""
    for field in fields(Route):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if isinstance(was, RetryPolicy):
            parts = (dict(_parts(each)) for each in (was, now))
            yield from _changes(*({f"retry.{name}": value for name, value in part.items()} for part in parts))
        else:
            name = "schema" if field.name == "bindings" else field.name
            yield from _changes({name: was}, {name: now})


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[OptionChange]:
    for name in dict.fromkeys((*old, *new)):
        was, now = old.get(name), new.get(name)
        if (was or None) != (now or None):  # what is left out, and what is empty, are the same
            yield OptionChange(name, _text(name, was), _text(name, now), name in RESTART)


def _listed(names: Iterable[str], noun: str) -> str:
    """Return names as a list, or the number of many."""
    found = tuple(names)
    return ", ".join(found) if len(found) <= MAX_NAMES else f"{len(found):,} {noun}s"


def _joined(options: Iterable[OptionChange]) -> str:
    return ", ".join(map(str, options))


def _text(field: str, value: Any) -> str:
    """Return the value of an option in the form of the routes file. What may be secret or long is `...`."""
    match field, value:
        case "schema", _:
            return ", ".join(dict.fromkeys(binding.schema.name for binding in value)) or "none"
        case "handler", _:
            return str(value.path)
        case "backend", str():
            return redact_url(value)
        case "http.tokens" | "description", _:
            return "..." if value else "none"
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
        case _, tuple() | frozenset():
            return ", ".join(map(str, sorted(value))) or "none"
        case _, float() | int() if field in _DURATIONS and not math.isinf(value):
            return format_duration(value)
    return str(value)
