"""`abe-router plan`: what a reload from one file to another would do."""

from __future__ import annotations

from pathlib import Path

import click

from abe_router.cli.access import read_table
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import config_option, json_option
from abe_router.cli.output import print_json, print_table
from abe_router.operations.plan import plan_reload
from abe_router.routing.difference import subject


@as_command(
    "plan",
    """
    abe-router plan routes.yaml edited.yaml
    git show HEAD:routes.yaml > old.yaml && abe-router plan old.yaml
    """,
)
@click.argument("old", type=click.Path(path_type=Path, readable=False))
@click.argument("new", required=False, type=click.Path(path_type=Path, readable=False))
@config_option
@json_option
def command(old: Path, new: Path | None, routes: Path, json: bool) -> int:
    """Show which routes a reload from OLD to NEW starts, stops, restarts and keeps.

    Keys that are added or removed, and changed options of keys and of the file, are shown too.
    `restart process` has those that take effect only when the workers are restarted. NEW is the routes file
    if it is not given. Handlers are not imported. The exit code is 0 for every plan.
    """
    table = read_table(new or routes)
    plan = plan_reload(read_table(old), table)
    if json:
        print_json(plan)
        return OK
    handlers = {route.name: route.handler.path for route in table.routes}
    rows = [("start", name, handlers[name]) for name in plan.start]
    rows += [("stop", name, "") for name in plan.stop]
    rows += [("restart", change.route, ", ".join(map(str, change.changes))) for change in plan.restart]
    rows += [("keep", name, "") for name in plan.keep]
    rows += [("add key", key, "") for key in plan.add_keys]
    rows += [("remove key", key, "") for key in plan.remove_keys]
    rows += [
        (f"change {subject(change.key)}", change.key, ", ".join(map(str, change.changes)))
        for change in plan.keys
    ]
    rows += [("change file", "", str(change)) for change in plan.file]
    rows += [("restart process", "", str(change)) for change in plan.restart_process]
    print_table(("action", "route or key", "reason"), rows)
    return OK
