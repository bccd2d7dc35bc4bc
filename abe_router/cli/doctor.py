"""`abe-router doctor`: what weakens the promise in the backend that the file, or an option, names."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from abe_router.backend import HealthResult, SubscriptionName
from abe_router.cli.access import read_table_if_any
from abe_router.cli.examples import as_command
from abe_router.cli.failure import FINDINGS, OK
from abe_router.cli.options import backend_option, json_option, prefix_option, routes_argument
from abe_router.cli.screen import say, show, show_json, wants_color
from abe_router.diagnostic import Severity, render_counts, render_headline, render_hint
from abe_router.routing.table import RouteTable

#: What is shown first: the worst.
_ORDER = list(Severity)


@as_command(
    "doctor",
    """
    abe-router doctor
    abe-router doctor --backend redis://localhost/0
    abe-router doctor --json
    """,
)
@routes_argument
@backend_option
@prefix_option
@json_option
def command(routes: Path, backend: str | None, prefix: str | None, json: bool) -> int:
    """Look at the backend, and say what weakens the promise and how to mend it.

    Nothing is written. With --backend there need be no routes file. What is found has a code, which
    docs/doctor.md explains. The exit code is 1 when an error or a warning is among it.
    """
    table = read_table_if_any(routes, backend=backend)
    served = {(route.key, route.group) for route in table.routes} if table.routes else None
    url, found = asyncio.run(_examine(table, prefix, served))
    found = sorted(found, key=lambda finding: (_ORDER.index(finding.severity), finding.code))
    if json:
        show_json({"backend": url, "findings": found})
    else:
        for finding in found:
            show(_rendered(finding, color=wants_color(sys.stdout)))
    say(render_counts(finding.severity for finding in found) or f"ok: nothing weakens the promise on {url}")
    return FINDINGS if any(finding.weakens for finding in found) else OK


async def _examine(
    table: RouteTable, prefix: str | None, served: Collection[SubscriptionName] | None
) -> tuple[str, Sequence[HealthResult]]:
    from abe_router.backends import make_backend

    backend = make_backend(table.backend, prefix=table.prefix if prefix is None else prefix)
    try:
        return backend.url, await backend.check_health(served)
    finally:
        await backend.close()


def _rendered(finding: HealthResult, *, color: bool) -> str:
    lines = [render_headline(finding.severity, finding.code, finding.message, color=color)]
    if finding.meaning:
        lines.append(f"  {finding.meaning}")
    if finding.hint:
        lines.append(f"  {render_hint(finding.hint, color=color)}")
    return "\n".join(lines)
