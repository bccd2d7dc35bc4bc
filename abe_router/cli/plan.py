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

    NEW is the routes file if it is not given. Handlers are not imported. The exit code is 0 for every plan.
    """
    plan = plan_reload(read_table(old), read_table(new or routes))
    if json:
        print_json(plan.to_json())
        return OK
    rows = [("start", route.name, route.handler.path) for route in plan.start]
    rows += [("stop", route.name, "") for route in plan.stop]
    rows += [("restart", change.new.name, ", ".join(map(str, change.options))) for change in plan.restart]
    rows += [("keep", route.name, "") for route in plan.keep]
    rows += [("restart process", "", str(change)) for change in plan.process]
    print_table(("action", "route", "reason"), rows)
    return OK
