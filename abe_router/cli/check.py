"""`abe-router check`: every fault in a routes file, for a person, a program or a pull request."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from abe_router.cli.access import read_table
from abe_router.cli.examples import as_command
from abe_router.cli.failure import CONFIG, OK
from abe_router.cli.options import (
    allow_handlers_option,
    backend_option,
    option,
    routes_argument,
    trust_writable_option,
)
from abe_router.cli.screen import say, show, show_json, wants_color
from abe_router.diagnostic import Diagnostic, render_all, render_github
from abe_router.errors import ConfigError
from abe_router.text import counted


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
    help="How faults are printed; github annotates a pull request.",
)
@option("--no-import", is_flag=True, help="Do not import the handlers, so that no code of theirs runs.")
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
    """Report every fault in a routes file, and in the schemas and handlers it names.

    The exit code is 78 when there is an error; warnings alone leave it at 0.
    """
    try:
        table = read_table(
            routes,
            backend=backend,
            import_handlers=not no_import,
            allow_handlers=allow_handlers,
            trust_writable=trust_writable,
        )
    except ConfigError as error:
        _render(error.diagnostics, form)
        say(f"error: {routes} has faults")
        return CONFIG
    _render(table.warnings, form)
    say(f"ok: {counted(len(table.routes), 'route')}, {counted(len(table.keys), 'key')}")
    return OK


def _render(diagnostics: Sequence[Diagnostic], form: str) -> None:
    if form == "json":
        show_json([diagnostic.to_json() for diagnostic in sorted(diagnostics)])
    elif form == "github":
        for diagnostic in sorted(diagnostics):
            show(render_github(diagnostic))
    elif diagnostics:
        show(render_all(diagnostics, color=wants_color(sys.stdout)))
