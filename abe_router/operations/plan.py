"""What a reload from one table to another would do: the affected routes and keys, and the changed options."""

from __future__ import annotations

import msgspec

from abe_router.routing.difference import OptionChange, difference
from abe_router.routing.table import RouteTable


class RouteChange(msgspec.Struct, frozen=True):
    """A route that both tables have, and every option in which it differs."""

    route: str
    changes: tuple[OptionChange, ...]


class KeyChange(msgspec.Struct, frozen=True):
    """A key that both tables have, and every option in which it differs; or a route with other metadata."""

    key: str
    changes: tuple[OptionChange, ...]


class Plan(msgspec.Struct, frozen=True):
    """What a reload does: the routes to start, stop, restart and keep, and what becomes of keys.

    `file` are the changed options of the file. Those of `restart_process` take effect only when the workers
    are restarted.
    """

    start: tuple[str, ...]
    stop: tuple[str, ...]
    restart: tuple[RouteChange, ...]
    keep: tuple[str, ...]
    add_keys: tuple[str, ...]
    remove_keys: tuple[str, ...]
    keys: tuple[KeyChange, ...]
    file: tuple[OptionChange, ...]
    restart_process: tuple[OptionChange, ...]


def plan_reload(old: RouteTable, new: RouteTable) -> Plan:
    """Return what a reload from one table to another does."""
    changes = difference(old, new)
    touched = {*changes.added, *changes.routes}
    return Plan(
        start=changes.added,
        stop=changes.removed,
        restart=tuple(RouteChange(name, options) for name, options in changes.routes.items()),
        keep=tuple(name for name in new.by_name if name not in touched),
        add_keys=changes.keys_added,
        remove_keys=changes.keys_removed,
        keys=tuple(KeyChange(name, options) for name, options in changes.keys.items()),
        file=tuple(change for change in changes.file if not change.restart),
        restart_process=tuple(change for change in changes.file if change.restart),
    )
