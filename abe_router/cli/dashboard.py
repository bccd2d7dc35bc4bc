"""`abe-router dashboard`: the HTTP server alone, without handlers."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from abe_router.cli.access import read_table_in_force
from abe_router.cli.examples import as_command
from abe_router.cli.http_server import announcement, read_address, require_extra
from abe_router.cli.options import backend_option, option, routes_argument, trust_writable_option
from abe_router.cli.output import wants_color
from abe_router.config.building.loader import Loader
from abe_router.observe.logs import TextFormatter, start_logging
from abe_router.routing.http_options import ListenAddress
from abe_router.routing.table import RouteTable


@as_command(
    "dashboard",
    """
    abe-router dashboard
    abe-router dashboard shop.yaml --listen 127.0.0.1:9000
    """,
)
@routes_argument
@backend_option
@option(
    "--listen",
    metavar="ADDRESS",
    help="Listen at this address alone; by default at those of the file, or 127.0.0.1:8470.",
)
@trust_writable_option
def command(routes: Path, backend: str | None, listen: str | None, trust_writable: bool) -> int:
    """Serve the API and the probes for a backend, without running handlers.

    It shows the workers of other processes and acts on their backend, so it needs a backend that processes
    can share. It follows edits of the file, and imports no handlers. While the file has faults, the edit that
    the workers run counts.
    """
    require_extra()
    table, _ = read_table_in_force(routes, backend=backend, ask=True)
    start_logging(sys.stderr, logging.INFO, TextFormatter(color=wants_color(sys.stderr)), in_thread=True)
    loader = Loader(
        routes, import_handlers=False, backend=backend, trust_writable=trust_writable, tests="off"
    )
    return asyncio.run(_serve(loader, table, read_address(listen) if listen else None))


async def _serve(loader: Loader, table: RouteTable, listen: ListenAddress | None) -> int:
    from abe_router.http.http_server import HttpServer
    from abe_router.http.sources import FileSource

    source = FileSource(loader, table)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await source.start(wait=True)
        has_probes = listen is None  # the workers of the same machine may use that address
        server = HttpServer(source, listen=listen, probes=has_probes, always=True, announce=announcement())
        async with server:
            await stopping.wait()
    finally:
        await source.stop()
    return 0
