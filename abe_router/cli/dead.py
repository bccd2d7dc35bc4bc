"""`abe-router dead`: the dead letters, by route."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

import click
import msgspec

from abe_router.backend import Backend, DeadLetter
from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import FINDINGS, OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option, route_argument
from abe_router.cli.output import confirm, print_data, print_json, print_message, print_table
from abe_router.messages.pattern import is_pattern
from abe_router.operations import dead_letters
from abe_router.operations.dead_letters import DeadLetterFilter, DeadLetterPage, DeadLetterSummary, Moved
from abe_router.operations.subscriptions import require_subscription
from abe_router.text import counted, format_time, parse_duration, printable

Route = tuple[str, str]

#: Width of a reason in the table, in characters.
LONGEST_REASON = 100
#: Rows of a table, if no other limit is given.
MOST_ROWS = 1_000

_all_option = option(
    "--all", "every", is_flag=True, envvar="ABE_ROUTER_DEAD_ALL", help="Select all dead letters of the route."
)


def _since(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    """Return the time that an age or a time of ISO 8601 means, in seconds since the epoch."""
    if value is None:
        return 0.0
    with suppress(ValueError):
        return time.time() - parse_duration(value)
    with suppress(ValueError):
        return datetime.fromisoformat(value).timestamp()
    raise click.BadParameter(f"`{value}` is neither an age, such as 2h, nor a time of ISO 8601", ctx, param)


def _pattern(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not is_pattern(value):
        raise click.BadParameter(f"`{value}` is not a key or a pattern", ctx, param)
    return value


@click.group("dead")
def command() -> None:
    """List, show, replay and purge dead letters.

    A dead letter is a message that one route could not handle. A route is written KEY/GROUP and may have
    been removed from the routes file. With --backend no routes file is needed.
    """


@as_command(
    "list",
    """
    abe-router dead list
    abe-router dead list orders.created/billing --json
    abe-router dead list --kind failed --since 2h --key 'orders.*'
    abe-router dead list orders.created/billing --limit 100 --after 4711
    """,
    command,
)
@route_argument(required=False)
@option("--kind", metavar="KIND", help="Only those of this kind, such as failed, invalid or timeout.")
@option("--since", metavar="AGO|TIME", callback=_since, help="Only those that failed since then: 2h, a time.")
@option("--key", metavar="PATTERN", callback=_pattern, help="Only those whose key matches.")
@option("--id", "message_id", metavar="TEXT", help="Only those of the message with this id.")
@option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"Show at most N; 0 shows all. The default is {MOST_ROWS:,} for a table, and all for --json.",
)
@option("--after", metavar="ID", default="", show_default=False, help="Continue after this dead letter.")
@backend_options
@json_option
def list_(
    route: Route | None,
    kind: str | None,
    since: float,
    key: str | None,
    message_id: str | None,
    limit: int | None,
    after: str,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """List the dead letters of one route or of all routes, without their payloads.

    The oldest come first. If there are more than the limit, the last line on stderr says how to go on.
    """
    if after and route is None:
        raise click.UsageError("--after needs a route, because an id belongs to one route")
    if limit is None and not json:
        limit = MOST_ROWS
    where = DeadLetterFilter(kind, key, message_id, since)

    async def read(found: Backend) -> DeadLetterPage:
        return await dead_letters.list_dead_letters(
            found, route, where=where, limit=limit or None, after=after
        )

    page: DeadLetterPage = _run(route, routes, backend, prefix, read)
    found = page.dead_letters
    if json:
        print_json(found)
    elif found:
        headings = ("route", "id", "message", "key", "reason", "attempts", "last failed")
        print_table(headings, [_row(summary) for summary in found], right={"attempts"})
    else:
        print_message("no dead letters")
    if page.more:
        further = f"--after {found[-1].id}" if route else "name a route"
        print_message(f"there are more: {further}, or --limit 0 for all")
    return OK


@as_command(
    "show",
    """
    abe-router dead show orders.created/billing 17
    """,
    command,
)
@route_argument()
@click.argument("id", metavar="ID")
@backend_options
@json_option
def show(route: Route, id: str, routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """Show one dead letter with its payload, headers and traceback."""
    found = _run(
        route, routes, backend, prefix, lambda found: dead_letters.find_dead_letter(found, route, id)
    )
    if json:
        print_json(dead_letters.detail(found))
    else:
        print_data("\n".join(lines(found)))
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
@_all_option
@backend_options
def replay(
    route: Route, ids: Sequence[str], every: bool, routes: Path, backend: str | None, prefix: str | None
) -> int:
    """Send dead letters back to their own route, and to no other.

    Each is moved exactly once, and its attempts count from 1 again.
    """
    _require_selection(ids, every)

    async def move(found: Backend) -> Moved:
        return await dead_letters.replay(found, route, await dead_letters.select(found, route, ids))

    return _report("replayed", _run(route, routes, backend, prefix, move))


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
@_all_option
@option("--yes", is_flag=True, help="Do not ask for confirmation of --all.")
@backend_options
def purge(
    route: Route,
    ids: Sequence[str],
    every: bool,
    yes: bool,
    routes: Path,
    backend: str | None,
    prefix: str | None,
) -> int:
    """Delete dead letters permanently."""
    _require_selection(ids, every)

    async def delete(found: Backend) -> Moved:
        selected = await dead_letters.select(found, route, ids)
        question = f"permanently delete {counted(len(selected), 'dead letter')}?"
        if every and selected and not (yes or confirm(question)):
            raise CommandError("nothing was deleted", hint="use --yes to delete without a question")
        return await dead_letters.purge(found, route, selected)

    return _report("purged", _run(route, routes, backend, prefix, delete))


def lines(dead_letter: DeadLetter) -> Iterator[str]:
    """Yield the whole of a dead letter as lines of text."""
    message, reason = dead_letter.message, dead_letter.reason
    where = f" at {reason.pointer or '(root)'} ({reason.keyword})" if reason.keyword else ""
    facts = {
        "dead letter": dead_letter.id,
        "route": dead_letter.route,
        "message": message.id,
        "key": message.key,
        "published": format_time(message.published_at),
        "reason": f"{reason.kind}{where}: {reason.error}: {reason.message}",
        "attempts": str(dead_letter.attempts),
        "deliveries": str(dead_letter.deliveries),
        "first failed": format_time(dead_letter.first_failed_at),
        "last failed": format_time(dead_letter.last_failed_at),
        "revision": dead_letter.revision,
        **{f"header {name}": value for name, value in message.headers.items()},
    }
    for name, value in facts.items():
        if value:
            yield printable(f"{name:<14}{value}")
    body = message.body
    if dead_letters.is_json(body):
        body = msgspec.json.format(body, indent=2)
    for title, text in (("payload", body.decode(errors="backslashreplace")), ("traceback", reason.traceback)):
        if text:
            yield f"\n{title}"
            yield from (f"  {printable(line)}" for line in text.splitlines())


def _row(summary: DeadLetterSummary) -> tuple[str, ...]:
    return (
        summary.route,
        summary.id,
        summary.message_id,
        summary.key,
        _short_reason(summary),
        str(summary.attempts),
        format_time(summary.last_failed_at),
    )


def _short_reason(summary: DeadLetterSummary) -> str:
    """Return a reason in one line that fits a table; `dead show` and `--json` have all of it."""
    text, _, more = summary.message.partition("\n")[0].partition("; at ")
    text = (
        f"{summary.kind}: {text}" if summary.kind == "invalid" else f"{summary.kind}: {summary.error}: {text}"
    )
    others = f" (+{more.count('; at ') + 1})" if more else ""
    text = " ".join(text.split())
    return (
        text if len(text) <= LONGEST_REASON else shorten(text, LONGEST_REASON, placeholder="...")
    ) + others


def _run(
    route: Route | None,
    routes: Path,
    url: str | None,
    prefix: str | None,
    act: Callable[[Backend], Awaitable[Any]],
) -> Any:
    """Run an operation on the backend of the file, or on another; a route that is given must be known."""
    table, _ = read_table_in_force(routes, backend=url, prefix=prefix)

    async def inside() -> Any:
        async with open_backend(table, prefix=prefix, only_read=True) as backend:
            if route is not None:
                await require_subscription(backend, route, table.by_name)
            return await act(backend)

    return asyncio.run(inside())


def _require_selection(ids: Sequence[str], every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("give either IDs or --all")


def _report(verb: str, moved: Moved) -> int:
    missing = f", {moved.missing:,} not found" if moved.missing else ""
    print_message(f"{verb} {moved.done:,}{missing}")
    return FINDINGS if moved.missing else OK
