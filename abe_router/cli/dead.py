"""`abe-router dead`: the dead letters, by route."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec

from abe_router.backend import Backend
from abe_router.cli import replay, republish
from abe_router.cli.access import read_table
from abe_router.cli.dead_options import (
    Route,
    all_option,
    filter_options,
    require_selection,
    run_on_backend,
    run_with_table,
    why_option,
)
from abe_router.cli.dead_table import print_groups, shortened_reason
from abe_router.cli.errors import FINDINGS, OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option, route_argument
from abe_router.cli.output import confirm, print_data, print_json, print_message, print_table
from abe_router.operations import dead_letters
from abe_router.operations.audit import local_author
from abe_router.operations.dead_groups import DeadGroups, dead_groups, select
from abe_router.operations.dead_letters import (
    DeadLetterDetail,
    DeadLetterFilter,
    DeadLetterPage,
    DeadLetterSummary,
    Moved,
)
from abe_router.operations.dead_try import TryResult, try_dead_letters
from abe_router.operations.subscriptions import require_unserved
from abe_router.routing.table import RouteTable
from abe_router.text import counted, format_time, printable

#: Rows of a table, if no other limit is given.
MOST_ROWS = 1_000


@click.group("dead")
def command() -> None:
    """List, group, try, replay, republish and purge dead letters.

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
@filter_options
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
    where: DeadLetterFilter | None,
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

    async def read(found: Backend, _: RouteTable) -> DeadLetterPage:
        return await dead_letters.list_dead_letters(
            found, route, where=where, limit=limit or None, after=after
        )

    page: DeadLetterPage = run_on_backend(route, routes, backend, prefix, read)
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
    "groups",
    """
    abe-router dead groups
    abe-router dead groups orders.created/billing --since 2h
    """,
    command,
)
@route_argument(required=False)
@filter_options
@backend_options
@json_option
def groups(
    route: Route | None,
    where: DeadLetterFilter | None,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Show the dead letters by fault, the most frequent first.

    Dead letters of one route with the same fault are one group. Numbers, ids and lines do not matter.
    `sample` is the id of the newest one. A group with several messages has a line for each, at most three.
    """

    async def read(found: Backend, _: RouteTable) -> DeadGroups:
        return await dead_groups(found, route, where=where)

    result: DeadGroups = run_on_backend(route, routes, backend, prefix, read)
    if json:
        print_json(result)
    else:
        print_groups(result)
    return OK


@as_command(
    "try",
    """
    abe-router dead try
    abe-router dead try orders.created/billing --group v1-3f2a9c1b04
    abe-router dead try -c new.yaml orders.created/billing
    """,
    command,
)
@route_argument(required=False)
@filter_options
@backend_options
@json_option
def try_(
    route: Route | None,
    where: DeadLetterFilter | None,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Show which dead letters would reach their handler now.

    Each payload is checked by the schemas and `when` of the file, or of another file with -c. No handler is
    imported or called, and nothing is replayed. The exit code is 1 if some would not reach their handler.
    """

    async def check(found: Backend, table: RouteTable) -> tuple[TryResult, ...]:
        return await try_dead_letters(found, table, route, where=where)

    results: tuple[TryResult, ...] = run_with_table(read_table(routes, backend=backend), route, prefix, check)
    if json:
        print_json(results)
    for result in () if json else results:
        print_data(printable(f"{result.route}: {result}"))
        for reason, count in result.reasons.items():
            print_data(printable(f"  {count:,}: {reason}"))
    if not results:
        print_message("no dead letters")
    return FINDINGS if any(r.invalid or r.dropped or r.unknown for r in results) else OK


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
    """Show one dead letter with its payload, headers and traceback.

    Values that a schema marks as `x-sensitive` are masked. Without a routes file, the whole payload is.
    """

    async def read(found: Backend, table: RouteTable) -> DeadLetterDetail:
        return dead_letters.detail(await dead_letters.find_dead_letter(found, route, id), table)

    found: DeadLetterDetail = run_on_backend(route, routes, backend, prefix, read)
    if json:
        print_json(found)
    else:
        print_data("\n".join(lines(found)))
    return OK


@as_command(
    "purge",
    """
    abe-router dead purge orders.created/billing 17
    abe-router dead purge orders.created/billing --group v1-3f2a9c1b04
    abe-router dead purge orders.created/billing --all --yes
    """,
    command,
)
@route_argument()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@all_option
@filter_options
@why_option
@option("--yes", is_flag=True, help="Do not ask for confirmation of --all and of filters.")
@option("--force", is_flag=True, help="Delete them under living workers too; needs --why.")
@backend_options
def purge(
    route: Route,
    ids: Sequence[str],
    every: bool,
    where: DeadLetterFilter | None,
    why: str,
    yes: bool,
    force: bool,
    routes: Path,
    backend: str | None,
    prefix: str | None,
) -> int:
    """Delete dead letters permanently.

    The dead letters are chosen before the question. Later ones are not deleted. A route that a living worker
    of any file runs is refused, unless --force is given.
    """
    require_selection(ids, every, where)

    async def delete(found: Backend, _: RouteTable) -> Moved:
        selected = (await select(found, route, where=where)).ids if not ids else tuple(dict.fromkeys(ids))
        question = f"permanently delete {counted(len(selected), 'dead letter')}?"
        if not force:  # before the question, too
            await require_unserved(found, route)
        if not ids and selected and not (yes or confirm(question)):
            raise CommandError("nothing was deleted", hint="use --yes to delete without a question")
        return await dead_letters.purge(found, route, selected, author=local_author(), why=why, force=force)

    moved: Moved = run_on_backend(route, routes, backend, prefix, delete)
    missing = f", {moved.missing:,} not found" if moved.missing else ""
    print_message(f"purged {moved.done:,}{missing}")
    return FINDINGS if moved.missing else OK


for each in (replay.command, replay.replays, republish.command):
    command.add_command(each)


def lines(detail: DeadLetterDetail) -> Iterator[str]:
    """Yield the whole of a dead letter as lines of text."""
    where = f" at {detail.pointer or '(root)'} ({detail.keyword})" if detail.keyword else ""
    former = f", the last one of {detail.former}" if detail.former else ""
    facts = {
        "dead letter": detail.id,
        "route": detail.route,
        "group": detail.group,
        "message": detail.message_id,
        "key": detail.key,
        "published": format_time(detail.published_at),
        "reason": f"{detail.kind}{where}: {detail.error}: {detail.message}",
        "raised in": detail.frame,
        "attempts": str(detail.attempts),
        "deliveries": str(detail.deliveries),
        "replays": f"{detail.replays}{former}" if detail.replays else "",
        "first failed": format_time(detail.first_failed_at),
        "last failed": format_time(detail.last_failed_at),
        "revision": detail.revision,
        **{f"header {name}": value for name, value in detail.headers.items()},
    }
    for name, value in facts.items():
        if value:
            yield printable(f"{name:<14}{value}")
    payload = detail.payload
    if not isinstance(payload, str):
        payload = msgspec.json.format(msgspec.json.encode(payload), indent=2).decode()
    for title, text in (("payload", payload), ("traceback", detail.traceback)):
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
    return shortened_reason(text) + others
