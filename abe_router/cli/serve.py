"""`abe-router serve`: run the routes, follow the file."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from abe_router.cli.examples import as_command
from abe_router.cli.failure import OK
from abe_router.cli.options import (
    allow_handlers_option,
    backend_option,
    option,
    routes_argument,
    trust_writable_option,
)
from abe_router.cli.screen import wants_color
from abe_router.log import JSONFormatter, TextFormatter, log_listener, start_logging

_log = logging.getLogger("abe_router")


@as_command(
    "serve",
    """
    abe-router serve
    abe-router serve shop.yaml --backend redis://localhost/0
    abe-router serve --once
    """,
)
@routes_argument
@backend_option
@option(
    "--drain", type=click.FloatRange(min=0), metavar="SECONDS", help="Longest wait for handlers at the end."
)
@option("--once", is_flag=True, help="Exit when every queue is empty.")
@option("--no-watch", is_flag=True, help="Do not follow edits of the file.")
@option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    envvar="ABE_ROUTER_LOG_FORMAT",
    help="How log lines look; by default text on a terminal, else JSON.",
)
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="ABE_ROUTER_LOG_LEVEL",
    help="The least level that is logged; debug tells of each message.",
)
@allow_handlers_option
@trust_writable_option
def command(
    routes: Path,
    backend: str | None,
    drain: float | None,
    once: bool,
    no_watch: bool,
    log_format: str | None,
    log_level: str,
    allow_handlers: Sequence[str],
    trust_writable: bool,
) -> int:
    """Run every route of the file, and follow the file as it changes.

    SIGTERM and SIGINT finish what is in hand and exit; a second one exits at once. Log lines go to
    stderr. The handlers that the file names are imported and run: treat the file as code.

    The exit code is 0 when all in hand was finished, 1 when the drain time ended first.
    """
    from abe_router.app import App
    from abe_router.config import Loader

    level = logging.getLevelNamesMapping()[log_level.upper()]
    as_text = sys.stderr.isatty() if log_format is None else log_format == "text"
    formatter = TextFormatter(color=wants_color(sys.stderr)) if as_text else JSONFormatter()
    start_logging(sys.stderr, level, formatter)
    loader = Loader(routes, allow_handlers=allow_handlers, backend=backend, trust_writable=trust_writable)
    table = loader.load()
    for warning in table.warnings:
        place = f"{warning.path}:{warning.line}:{warning.column}"
        _log.warning("%s: %s (%s)", place, warning.message, warning.code)
    app = App(loader, table, listeners=[log_listener(level)], watch=not no_watch, once=once, drain=drain)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code = runner.run(app.run())
    if code != OK:
        # A thread cannot be stopped: one that still runs a plain handler would hold the process forever.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    return code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's, which is faster, where there is one."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
