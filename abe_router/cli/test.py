"""`abe-router test`: run the test cases of a routes file in memory, and report them."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click

from abe_router.backend.substitute import standing_for_all
from abe_router.cli.access import read_table
from abe_router.cli.errors import FINDINGS, OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import (
    allow_handlers_option,
    json_option,
    option,
    routes_argument,
    trust_writable_option,
)
from abe_router.cli.output import print_data, print_json, print_message, wants_color
from abe_router.routing.case import Case
from abe_router.routing.table import RouteTable
from abe_router.text import counted, format_duration, printable


@as_command(
    "test",
    """
    abe-router test
    abe-router test other.yaml -k refund
    abe-router test --json | jq '.[] | select(.passed | not)'
    """,
)
@routes_argument
@option(
    "-k",
    "part",
    metavar="TEXT",
    default="",
    show_default=False,
    envvar="ABE_ROUTER_TEST_K",
    help="Run the cases whose name contains TEXT; upper and lower case are the same.",
)
@option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    help="Longest time for a case to finish.",
)
@json_option
@allow_handlers_option
@trust_writable_option
def command(
    routes: Path,
    part: str,
    patience: float,
    json: bool,
    allow_handlers: Sequence[str],
    trust_writable: bool,
) -> int:
    """Run the `tests` of a routes file in memory with its handlers.

    Each case has its own backend, and retries do not wait. The output of the handlers is shown for a case
    that fails. The exit code is 1 when a case fails, or when there are no cases to run.
    """
    with standing_for_all():
        table = read_table(
            routes,
            backend="memory://",
            import_handlers=True,
            allow_handlers=allow_handlers,
            trust_writable=trust_writable,
            strict=True,
        )
    cases = [case for case in table.cases if part.casefold() in case.name.casefold()]
    if not cases:
        if json:
            print_json([])
        if table.cases:
            raise CommandError(
                f"no case has `{part}` in its name", hint=f"the file has {counted(len(table.cases), 'case')}"
            )
        raise CommandError(f"{routes} has no `tests`", hint="add `tests:`; see docs/language.md")
    began, failed, found = time.perf_counter(), 0, []
    for case in cases:
        values = _run(table, case, routes, patience)
        failed += not values["passed"]
        found.append(values)
        if not json:
            _print_case(values)
    if json:
        print_json(found)
    counts = [f"{len(cases) - failed} passed"] + [f"{failed} failed"] * bool(failed)
    print_message(f"{', '.join(counts)} in {format_duration(time.perf_counter() - began)}")
    return FINDINGS if failed else OK


def _run(table: RouteTable, case: Case, path: Path, patience: float) -> dict[str, Any]:
    """Run a case and return its result as plain JSON values."""
    from abe_router.testing.cases import run_case

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        result = asyncio.run(run_case(table, case, patience=patience))
    failures = [
        {"line": f.position.line, "column": f.position.column, "message": f.message, "details": f.details}
        for f in result.failures
    ]
    return {
        "name": case.name,
        "path": str(path),
        "line": case.position.line,
        "column": case.position.column,
        "passed": result.passed,
        "seconds": result.seconds,
        "failures": failures,
        "printed": printed.getvalue(),
    }


def _print_case(values: dict[str, Any]) -> None:
    """Print a case on one line, and its failures below."""
    green, red, reset = ("\033[32m", "\033[1;31m", "\033[0m") if wants_color(sys.stdout) else ("", "", "")
    name, path = printable(values["name"]), printable(values["path"])
    if values["passed"]:
        print_data(f"{green}ok{reset}    {name}  ({format_duration(values['seconds'])})")
        return
    print_data(f"{red}FAIL{reset}  {name}  ({path}:{values['line']}:{values['column']})")
    for failure in values["failures"]:
        print_data(f"      {path}:{failure['line']}:{failure['column']}: {printable(failure['message'])}")
        for line in failure["details"]:
            print_data(f"        {printable(line)}")
    if values["printed"]:
        print_data("      printed:")
        for line in values["printed"].splitlines():
            print_data(f"        {printable(line)}")
