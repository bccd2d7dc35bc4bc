"""`abe-router doctor`: what weakens the promise on the backend of the file, or of an option."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from abe_router.backend import HealthResult
from abe_router.cli.access import read_table_in_force
from abe_router.cli.errors import CONFIG, FINDINGS, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_option, json_option, option, prefix_option, routes_argument
from abe_router.cli.output import print_data, print_json, print_message, wants_color
from abe_router.diagnostic import render_counts, render_headline, render_hint
from abe_router.operations.access import table_backend
from abe_router.operations.health import HealthReport, check_health
from abe_router.routing.table import RouteTable
from abe_router.text import printable


@as_command(
    "doctor",
    """
    abe-router doctor
    abe-router doctor --backend redis://localhost/0
    abe-router doctor --ignore D340 --ignore D311
    abe-router doctor --json
    """,
)
@routes_argument
@backend_option
@prefix_option
@option(
    "--ignore",
    metavar="CODE",
    multiple=True,
    help="Leave out the results with this code; can be repeated.",
)
@json_option
def command(routes: Path, backend: str | None, prefix: str | None, ignore: Sequence[str], json: bool) -> int:
    """Check the backend, and show what weakens the promise and how to fix it.

    Nothing is written. With --backend no routes file is needed. Each result has a code that docs/doctor.md
    explains. While the file has faults, the last accepted edit counts, and the exit code is 78. Otherwise it
    is 1 when one of the results is an error or a warning. A result that is ignored does not count.
    """
    table, error = read_table_in_force(routes, backend=backend, prefix=prefix, ask=True)
    report = asyncio.run(_check(table, prefix, ignore))
    if json:
        print_json(report)
    else:
        for result in report.results:
            print_data(_rendered(result, color=wants_color(sys.stdout)))
        for route, workers in report.served.items():
            print_data(printable(f"{route} is served by {'; '.join(workers)}"))
    counts = render_counts(result.severity for result in report.results)
    ignored = f" (ignored: {', '.join(report.ignored)})" if report.ignored else ""
    where = f" on {printable(report.backend)} ({report.chosen_by})"
    print_message((counts or "ok: nothing weakens the promise") + where + ignored)
    if error is not None:
        return CONFIG
    return OK if report.healthy else FINDINGS


async def _check(table: RouteTable, prefix: str | None, ignore: Sequence[str]) -> HealthReport:
    backend = table_backend(table, prefix=prefix)
    try:
        return await check_health(table, backend, ignore=ignore)
    finally:
        await backend.close()


def _rendered(result: HealthResult, *, color: bool) -> str:
    lines = [render_headline(result.severity, result.code, result.message, color=color)]
    if result.meaning:
        lines.append(f"  {printable(result.meaning)}")
    if result.hint:
        lines.append(f"  {render_hint(result.hint, color=color)}")
    return "\n".join(lines)
