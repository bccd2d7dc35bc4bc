"""The options and arguments of `abe-router dead` that several of its commands share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from math import inf
from pathlib import Path
from typing import Any

import click

from abe_router.backend import Backend
from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.options import Decorated, option
from abe_router.messages.pattern import is_pattern
from abe_router.operations.dead_letters import DeadLetterFilter
from abe_router.operations.subscriptions import require_subscription
from abe_router.routing.table import RouteTable
from abe_router.text import parse_duration

Route = tuple[str, str]

all_option = option(
    "--all", "every", is_flag=True, envvar="ABE_ROUTER_DEAD_ALL", help="Select all dead letters of the route."
)
why_option = option(
    "--why", metavar="TEXT", default="", show_default=False, help="The reason, for the audit."
)


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the time that an age or a time of ISO 8601 means, in seconds since the epoch."""
    if value is None:
        return None
    with suppress(ValueError):
        return time.time() - parse_duration(value)
    with suppress(ValueError):
        return datetime.fromisoformat(value).timestamp()
    raise click.BadParameter(f"`{value}` is neither an age, such as 2h, nor a time of ISO 8601", ctx, param)


def _pattern(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_pattern(value):
        raise click.BadParameter(f"`{value}` is not a key or a pattern", ctx, param)
    return value


_FILTERS = (
    option("--group", metavar="FP", help="Only those of this group, as `dead groups` shows it."),
    option("--kind", metavar="KIND", help="Only those of this kind, such as failed, invalid or timeout."),
    option(
        "--since", metavar="AGO|TIME", callback=_time, help="Only those that failed since then: 2h, a time."
    ),
    option("--until", metavar="AGO|TIME", callback=_time, help="Only those that failed until then."),
    option("--key", metavar="PATTERN", callback=_pattern, help="Only those whose key matches."),
    option("--id", "message_id", metavar="TEXT", help="Only those of the message with this id."),
    option("--revision", metavar="HASH", help="Only those of this revision of the file, or its beginning."),
)


def filter_options(command: Decorated) -> Decorated:
    """Add the options that make a DeadLetterFilter, and pass it as `where`: None if no option is given."""

    @wraps(command)
    def with_filter(
        *args: Any,
        group: str | None,
        kind: str | None,
        since: float | None,
        until: float | None,
        key: str | None,
        message_id: str | None,
        revision: str | None,
        **rest: Any,
    ) -> Any:
        given = (kind, key, message_id, since, until, group, revision)
        where = None
        if any(value is not None for value in given):
            last = inf if until is None else until
            where = DeadLetterFilter(kind, key, message_id, since or 0.0, last, group, revision)
        return command(*args, where=where, **rest)

    decorated: Any = with_filter
    for add in reversed(_FILTERS):
        decorated = add(decorated)
    result: Decorated = decorated
    return result


def require_selection(ids: Sequence[str], every: bool, where: DeadLetterFilter | None) -> None:
    """Raise UsageError unless IDs, --all or filters are given, and only one of them."""
    if bool(ids) + every + (where is not None) != 1:
        raise click.UsageError("give either IDs, or --all, or filters such as --group")


def run_on_backend(
    route: Route | None,
    routes: Path,
    url: str | None,
    prefix: str | None,
    act: Callable[[Backend, RouteTable], Awaitable[Any]],
) -> Any:
    """Run an operation on the backend of the file, or on another; a route that is given must be known."""
    table, _ = read_table_in_force(routes, backend=url, prefix=prefix)
    return run_with_table(table, route, prefix, act)


def run_with_table(
    table: RouteTable,
    route: Route | None,
    prefix: str | None,
    act: Callable[[Backend, RouteTable], Awaitable[Any]],
) -> Any:
    """Run an operation on the backend of a table; a route that is given must be known."""

    async def inside() -> Any:
        async with open_backend(table, prefix=prefix, only_read=True) as backend:
            if route is not None:
                await require_subscription(backend, route, table.by_name)
            return await act(backend, table)

    return asyncio.run(inside())
