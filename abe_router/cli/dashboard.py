"""`abe-router dashboard`: the HTTP server alone, without handlers."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from abe_router.cli.access import require_backend
from abe_router.cli.examples import as_command
from abe_router.cli.http_server import announcement, read_address, require_extra
from abe_router.cli.options import backend_option, option, routes_argument, trust_writable_option
from abe_router.cli.output import wants_color
from abe_router.config.building.loader import Loader
from abe_router.observe.logs import TextFormatter, start_logging
from abe_router.routing.http_options import ListenAddress


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
    can share. It follows edits of the file, and imports no handlers.
    """
    require_extra()
    require_backend(backend)
    start_logging(sys.stderr, logging.INFO, TextFormatter(color=wants_color(sys.stderr)), in_thread=True)
    loader = Loader(routes, import_handlers=False, backend=backend, trust_writable=trust_writable)
    return asyncio.run(_serve(loader, read_address(listen) if listen else None))


async def _serve(loader: Loader, listen: ListenAddress | None) -> int:
    from abe_router.http.http_server import HttpServer
    from abe_router.http.sources import FileSource

    source = FileSource(loader, loader.load())
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        await source.start(wait=True)
        has_probes = listen is None  # the workers of the same machine may use that address
        async with HttpServer(source, listen=listen, probes=has_probes, announce=announcement()):
            await stopping.wait()
    finally:
        await source.stop()
    return 0
