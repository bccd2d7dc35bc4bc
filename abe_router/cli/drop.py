"""`abe-router drop`: forget what the backend keeps for a route that is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from abe_router.cli.access import reach, read_table, require_backend
from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK, Failure
from abe_router.cli.letters import require_route
from abe_router.cli.options import option, reaching, route_argument
from abe_router.cli.screen import ask, say
from abe_router.routing.table import RouteTable


@as_command(
    "drop",
    """
    abe-router drop orders.created/billing
    """,
)
@route_argument()
@option("--yes", is_flag=True, help="Do not ask.")
@reaching
def command(route: tuple[str, str], yes: bool, routes: Path, backend: str | None, prefix: str | None) -> int:
    """Forget a route that is gone: its backlog and its dead letters.

    A route that was taken out of the file keeps its messages in the backend, so that putting it back
    loses nothing. This gives them up. A route that is still in the file is refused.
    """
    name = "/".join(route)
    require_backend(backend)
    table = (
        RouteTable(backend=backend)
        if backend and not routes.exists()
        else read_table(routes, backend=backend)
    )
    if name in table.by_name:
        raise Failure(
            f"`{name}` is in {routes}", hint="take it out of the file first, and let the workers follow"
        )

    async def forget() -> None:
        async with reach(table, prefix=prefix, only_read=True) as found:
            await require_route(found, route)
            if not (yes or ask(f"forget {name} with all it has not handled?")):
                raise Failure("nothing was dropped", hint="--yes does not ask")
            await found.drop(*route)

    asyncio.run(forget())
    say(f"dropped {name}")
    return OK
