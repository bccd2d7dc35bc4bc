"""`abe-router pause`, `limit` and `resume`: overrides of routes that end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from abe_router.backend import Backend
from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_json, print_message
from abe_router.operations import overrides
from abe_router.operations.audit import local_author
from abe_router.operations.overrides import OverrideResult
from abe_router.routing.table import RouteTable
from abe_router.text import counted, parse_duration, parse_rate, printable


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, such as 30m or 2h", ctx, param) from error


def _rate(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return parse_rate(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}, such as 5/s or 90/m", ctx, param) from error


_route_argument = click.argument("route", metavar="KEY/GROUP|PATTERN")
_for_option = option(
    "--for",
    "seconds",
    default="1h",
    metavar="TIME",
    callback=_duration,
    help="How long it holds, at most 7d; what holds longer belongs in the file.",
)
_why_option = option("--why", required=True, metavar="TEXT", help="The reason, shown wherever the route is.")


@as_command(
    "pause",
    """
    abe-router pause orders.created/billing --why 'gateway down'
    abe-router pause 'orders.#/*' --for 2h --why 'moving the database'
    """,
)
@_route_argument
@_for_option
@_why_option
@backend_options
@json_option
def pause(
    route: str, seconds: float, why: str, routes: Path, backend: str | None, prefix: str | None, json: bool
) -> int:
    """Pause routes for a time.

    A paused route fetches no messages. It finishes what it has fetched, and restarts nothing. The pause ends
    by the clock of the backend, also while no worker runs, and holds over edits and restarts. A pattern means
    the routes that exist now.

    Returns when all running workers obey. If some have not answered in time, they are named, and the exit
    code is 1.
    """

    def act(table: RouteTable, found: Backend) -> Awaitable[OverrideResult]:
        author = local_author()
        return overrides.pause(table, found, route, author=author, why=why, seconds=seconds)

    return _run(act, routes, backend, prefix, json, of="pause")


@as_command(
    "limit",
    """
    abe-router limit orders.created/billing 5/s --for 3h --why 'gateway is slow'
    """,
)
@_route_argument
@click.argument("rate", metavar="RATE", callback=_rate)
@_for_option
@_why_option
@backend_options
@json_option
def limit(
    route: str,
    rate: float,
    seconds: float,
    why: str,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Limit the rate of routes for a time.

    The RATE, such as 5/s or 90/m, holds for each route and all workers together. It takes precedence over the
    `rate` of the file. A route may be paused and limited: when the pause ends first, the limit keeps the
    backlog from arriving all at once.

    Returns when all running workers obey. If some have not answered in time, they are named, and the exit
    code is 1.
    """

    def act(table: RouteTable, found: Backend) -> Awaitable[OverrideResult]:
        author = local_author()
        return overrides.limit(table, found, route, rate, author=author, why=why, seconds=seconds)

    return _run(act, routes, backend, prefix, json, of="limit")


@as_command(
    "resume",
    """
    abe-router resume orders.created/billing
    """,
)
@_route_argument
@option("--why", default="", show_default=False, metavar="TEXT", help="The reason, for the audit.")
@backend_options
@json_option
def resume(route: str, why: str, routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """End the pause and the limit of routes.

    A route that the file pauses stays paused.

    Returns when all running workers obey. If some have not answered in time, they are named, and the exit
    code is 1.
    """

    def act(table: RouteTable, found: Backend) -> Awaitable[OverrideResult]:
        return overrides.resume(table, found, route, author=local_author(), why=why)

    return _run(act, routes, backend, prefix, json, of="resume")


def _run(
    act: Callable[[RouteTable, Backend], Awaitable[OverrideResult]],
    routes: Path,
    url: str | None,
    prefix: str | None,
    json: bool,
    *,
    of: str,
) -> int:
    """Run an operation and report what came of it."""
    table, _ = read_table_in_force(routes, backend=url, prefix=prefix)

    async def inside() -> OverrideResult:
        async with open_backend(table, prefix=prefix) as backend:
            return await act(table, backend)

    result = asyncio.run(inside())
    if json:
        print_json(result)
        return FINDINGS if result.silent else OK
    for route in result.routes:
        print_message(printable(f"{route.route}: {route.text}"))
        if of == "pause" and (route.waiting or route.in_flight):
            finished = f"; {route.in_flight:,} in flight are finished" if route.in_flight else ""
            print_message(f"  {counted(route.waiting, 'message')} wait{finished}")
        if of == "resume" and route.paused_in_file:
            print_message("  it stays paused, because the routes file says `paused: true`")
    if result.obeyed:
        print_message(f"obeyed by {counted(len(result.obeyed), 'worker')}")
    if result.silent:
        print_message(printable(f"warning: not obeyed yet by {', '.join(result.silent)}"))
    if not result.obeyed and not result.silent:
        print_message("no worker is running; workers obey when they start")
    return FINDINGS if result.silent else OK
