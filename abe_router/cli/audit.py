"""`abe-router audit`: what operators did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import click

from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_json, print_message, print_table
from abe_router.operations.audit import Act, acts
from abe_router.text import format_time, shortened

#: Longest result in the table, in characters.
LONGEST_RESULT = 80


@as_command(
    "audit",
    """
    abe-router audit
    abe-router audit --limit 0 --json | jq '.[] | select(.action == "pause")'
    """,
)
@option(
    "--limit",
    default=20,
    metavar="N",
    type=click.IntRange(min=0),
    help="Show the newest N; 0 shows all that are kept.",
)
@backend_options
@json_option
def command(limit: int, routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """Show what operators did, newest first: who, from where, why, and what came of it.

    The backend keeps the newest 1,000 acts. The name of an author is testimony, and no proof.
    """
    table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)

    async def read() -> Sequence[Act]:
        async with open_backend(table, prefix=prefix, only_read=True) as found:
            return await acts(found, limit=limit or 1_000_000)

    done = asyncio.run(read())
    if json:
        print_json(done)
    elif done:
        headings = ("act", "time", "author", "from", "did", "to", "why", "result")
        print_table(headings, [_row(act) for act in done], right={"act"})
    else:
        print_message("no operator has changed anything")
    return OK


def _row(act: Act) -> tuple[str, ...]:
    result = shortened(act.result, LONGEST_RESULT)
    return (
        str(act.number),
        format_time(act.at),
        act.author,
        act.source,
        act.action,
        act.target,
        act.why,
        result,
    )
