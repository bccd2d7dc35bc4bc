"""`abe-router dead`: the dead letters, by route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import click

from abe_router.backend import Backend, DeadLetter
from abe_router.cli.access import reach, read_table_if_any
from abe_router.cli.examples import as_command
from abe_router.cli.failure import FINDINGS, OK, Failure
from abe_router.cli.letters import PAGE, lines, read_letters, require_route, summary, values
from abe_router.cli.options import json_option, option, reaching, route_argument
from abe_router.cli.screen import ask, say, show, show_json, show_table
from abe_router.text import counted, format_time

Route = tuple[str, str]

#: Width of a reason in the table, in characters.
LONGEST_REASON = 100

_every_option = option(
    "--all", "every", is_flag=True, envvar="ABE_ROUTER_DEAD_ALL", help="All there are now."
)


@click.group("dead")
def command() -> None:
    """List, show, replay and purge dead letters.

    A dead letter is a message that one route could not handle. A route is written KEY/GROUP and need not be
    in the routes file any more; with --backend there need be no file.
    """


@as_command(
    "list",
    """
    abe-router dead list
    abe-router dead list orders.created/billing --json
    """,
    command,
)
@route_argument(required=False)
@reaching
@json_option
def list_(route: Route | None, routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """List the dead letters of a route, or of all, without their payloads."""

    async def read(found: Backend) -> list[dict[str, Any]]:
        wanted = [route] if route else [(s.pattern, s.group) for s in await found.status() if s.dead]
        return [summary(letter) for one in wanted async for letter in read_letters(found, one)]

    rows = _run(route, routes, backend, prefix, read)
    if json:
        show_json(rows)
    elif rows:
        show_table(
            ("route", "id", "key", "reason", "attempts", "last failed"),
            [
                (
                    row["route"],
                    row["id"],
                    row["key"],
                    _brief(row),
                    str(row["attempts"]),
                    format_time(row["last_failed_at"]),
                )
                for row in rows
            ],
            right={"attempts"},
        )
    else:
        say("no dead letters")
    return OK


def _brief(row: dict[str, Any]) -> str:
    """Return a reason in a line that fits a table; `dead show` and `--json` have it whole."""
    said, _, more = str(row["message"]).partition("\n")[0].partition("; at ")
    text = f"{row['kind']}: {said}" if row["kind"] == "invalid" else f"{row['kind']}: {row['error']}: {said}"
    return shorten(text, LONGEST_REASON, placeholder="...") + (
        f" (+{more.count('; at ') + 1})" if more else ""
    )


@as_command(
    "show",
    """
    abe-router dead show orders.created/billing 17
    """,
    command,
)
@route_argument()
@click.argument("letter", metavar="ID")
@reaching
@json_option
def show_(
    route: Route, letter: str, routes: Path, backend: str | None, prefix: str | None, json: bool
) -> int:
    """Show one dead letter with its payload, headers and traceback."""

    async def find(found: Backend) -> DeadLetter:
        async for one in read_letters(found, route):
            if one.id == letter:
                return one
        raise Failure(
            f"`{'/'.join(route)}` has no dead letter `{letter}`", hint="`abe-router dead list` has the ids"
        )

    one = _run(route, routes, backend, prefix, find)
    if json:
        show_json(values(one))
    else:
        show("\n".join(lines(one)))
    return OK


@as_command(
    "replay",
    """
    abe-router dead replay orders.created/billing 17 18
    abe-router dead replay orders.created/billing --all
    """,
    command,
)
@route_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_every_option
@reaching
def replay(
    route: Route, ids: Sequence[str], every: bool, routes: Path, backend: str | None, prefix: str | None
) -> int:
    """Hand dead letters to their own route again, and to no other.

    Each is moved once, and its attempts count from 1 again.
    """
    _require_choice(ids, every)

    async def move(found: Backend) -> tuple[int, int]:
        chosen = await _choose(found, route, ids)
        return len(chosen), await _in_pages(chosen, lambda page: found.replay(*route, page))

    return _tell("replayed", *_run(route, routes, backend, prefix, move))


@as_command(
    "purge",
    """
    abe-router dead purge orders.created/billing 17
    abe-router dead purge orders.created/billing --all --yes
    """,
    command,
)
@route_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_every_option
@option("--yes", is_flag=True, help="Do not ask before --all.")
@reaching
def purge(
    route: Route,
    ids: Sequence[str],
    every: bool,
    yes: bool,
    routes: Path,
    backend: str | None,
    prefix: str | None,
) -> int:
    """Delete dead letters for good."""
    _require_choice(ids, every)

    async def delete(found: Backend) -> tuple[int, int]:
        chosen = await _choose(found, route, ids)
        if every and chosen and not (yes or ask(f"delete {counted(len(chosen), 'dead letter')} for good?")):
            raise Failure("nothing was deleted", hint="--yes does not ask")
        return len(chosen), await _in_pages(chosen, lambda page: found.purge(*route, page))

    return _tell("purged", *_run(route, routes, backend, prefix, delete))


def _run(
    route: Route | None,
    routes: Path,
    url: str | None,
    prefix: str | None,
    act: Callable[[Backend], Awaitable[Any]],
) -> Any:
    """Do something with the dead letters of a route that is known, in the backend of the file or another."""
    table = read_table_if_any(routes, backend=url)

    async def inside() -> Any:
        async with reach(table, prefix=prefix, only_read=True) as backend:
            if route is not None:
                await require_route(backend, route, table.by_name)
            return await act(backend)

    return asyncio.run(inside())


def _require_choice(ids: Sequence[str], every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("name the IDs, or give --all")


async def _choose(backend: Backend, route: Route, ids: Sequence[str]) -> list[str]:
    """Return the ids given, or all there are; those that die meanwhile are left for the next time."""
    return list(dict.fromkeys(ids)) or [letter.id async for letter in read_letters(backend, route)]


async def _in_pages(ids: Sequence[str], act: Callable[[Sequence[str]], Awaitable[int]]) -> int:
    return sum([await act(ids[start : start + PAGE]) for start in range(0, len(ids), PAGE)])


def _tell(did: str, wanted: int, done: int) -> int:
    say(f"{did} {done:,}" + (f", {wanted - done:,} not found" if done < wanted else ""))
    return FINDINGS if done < wanted else OK
