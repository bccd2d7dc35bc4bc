"""`abe-router check`: every fault in a routes file, as text, as JSON or as annotations of a pull request."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from abe_router.cli.access import read_table
from abe_router.cli.errors import CONFIG, OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import (
    allow_handlers_option,
    backend_option,
    option,
    routes_argument,
    trust_writable_option,
)
from abe_router.cli.output import print_data, print_json, print_message, wants_color
from abe_router.diagnostic import Diagnostic, render_all, render_github
from abe_router.errors import ConfigError
from abe_router.text import counted, printable


@as_command(
    "check",
    """
    abe-router check
    abe-router check other.yaml --no-import
    abe-router check --format github
    """,
)
@routes_argument
@option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    envvar="ABE_ROUTER_CHECK_FORMAT",
    help="Output format of the faults; github annotates a pull request.",
)
@option(
    "--no-import",
    is_flag=True,
    help="Import no handler, and read no file outside the folder of ROUTES: for files of strangers.",
)
@backend_option
@allow_handlers_option
@trust_writable_option
def command(
    routes: Path,
    form: str,
    no_import: bool,
    backend: str | None,
    allow_handlers: Sequence[str],
    trust_writable: bool,
) -> int:
    """Check a routes file, and the schemas and handlers it names.

    Reports every fault, not only the first. The exit code is 78 when there is an error, and 0 when there are
    only warnings.
    """
    try:
        table = read_table(
            routes,
            backend=backend,
            import_handlers=not no_import,
            allow_handlers=allow_handlers,
            trust_writable=trust_writable,
            confined=no_import,
            strict=True,
        )
    except ConfigError as error:
        _render(error.diagnostics, form)
        print_message(f"error: {printable(str(routes))} has faults")
        return CONFIG
    _render(table.warnings, form)
    print_message(f"ok: {counted(len(table.routes), 'route')}, {counted(len(table.keys), 'key')}")
    return OK


def _render(diagnostics: Sequence[Diagnostic], form: str) -> None:
    if form == "json":
        print_json([diagnostic.to_json() for diagnostic in sorted(diagnostics)])
    elif form == "github":
        for diagnostic in sorted(diagnostics):
            print_data(render_github(diagnostic))
    elif diagnostics:
        print_data(render_all(diagnostics, color=wants_color(sys.stdout)))
