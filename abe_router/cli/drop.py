"""`abe-router drop`: delete what the backend keeps for a removed route."""

from __future__ import annotations

import asyncio
from pathlib import Path

from abe_router.cli.access import open_backend, read_table, require_backend
from abe_router.cli.errors import OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, option, route_argument
from abe_router.cli.output import confirm, print_message
from abe_router.operations.audit import local_author
from abe_router.operations.subscriptions import (
    drop,
    require_removed,
    require_subscription,
    require_unserved,
)
from abe_router.routing.table import RouteTable


@as_command(
    "drop",
    """
    abe-router drop orders.created/billing
    """,
)
@route_argument()
@option("--yes", is_flag=True, help="Do not ask for confirmation.")
@option("--why", default="", show_default=False, metavar="TEXT", help="The reason, for the audit.")
@option("--force", is_flag=True, help="Delete it under living workers too; needs --why.")
@backend_options
def command(
    route: tuple[str, str],
    yes: bool,
    why: str,
    force: bool,
    routes: Path,
    backend: str | None,
    prefix: str | None,
) -> int:
    """Delete the backlog and the dead letters of a removed route.

    A route that is removed from the file keeps its messages in the backend, so nothing is lost if it is
    added again. This command deletes them. A route that is still in the file is refused, and so is one that a
    living worker of any file runs, unless --force is given.
    """
    name = "/".join(route)
    choice = require_backend(backend, routes)
    if choice.overrides_file and not routes.exists():
        table = RouteTable(backend=choice.url, backend_chosen_by=choice.chosen_by)
    else:
        table = read_table(routes, backend=backend)
    require_removed(table, route)

    async def delete() -> None:
        async with open_backend(table, prefix=prefix, only_read=True) as found:
            await require_subscription(found, route)
            if not force:  # before the question, too
                await require_unserved(found, route)
            if not (yes or confirm(f"delete the backlog and the dead letters of {name}?")):
                raise CommandError("nothing was dropped", hint="use --yes to drop without a question")
            await drop(table, found, route, author=local_author(), why=why, force=force)

    asyncio.run(delete())
    print_message(f"dropped {name}")
    return OK
