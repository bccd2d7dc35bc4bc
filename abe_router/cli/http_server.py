"""Starting the HTTP server for a command."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from abe_router.cli.errors import USAGE, CommandError
from abe_router.cli.output import print_message
from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
from abe_router.operations.access import table_backend
from abe_router.process.supervisor import Supervisor
from abe_router.process.worker import Worker
from abe_router.routing.http_options import ListenAddress, parse_address
from abe_router.routing.table import RouteTable

#: The option `http` in a routes file, and no URL.
_OPTION = re.compile(rb"""\bhttp["']?\s*:(?!//)""")


def require_extra() -> None:
    """Raise CommandError if the extra `http` is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"the HTTP server needs the extra `http`: {' and '.join(missing)} cannot be imported",
            hint="run `pip install 'abe-router[http]'`",
            code=USAGE,
        )


def mentions_http(path: Path) -> bool:
    """Return whether a routes file may have the option `http`; reading it as YAML takes longer."""
    try:
        return _OPTION.search(path.read_bytes()) is not None
    except OSError:
        return False


@dataclass(frozen=True)
class Beside:
    """What serves the API beside a supervisor; or, if its workers cannot share the backend, in the worker."""

    supervisor: Callable[[Supervisor], AbstractAsyncContextManager[object]] | None = None
    worker: Callable[[Worker], AbstractAsyncContextManager[object]] | None = None


def plan_server(
    routes: Path, listen: str | None, *, backend: str | None, trust_writable: bool
) -> Beside | None:
    """Return what serves the API, None if neither the file nor the command line asks for it.

    `listen` is the address of the command line, empty for that of the file. The handlers are not imported.
    None if the file has errors: the workers, which import the handlers, report all of them.
    """
    loader = Loader(routes, import_handlers=False, backend=backend, trust_writable=trust_writable)
    try:
        table = loader.load()
    except ConfigError:
        return None
    if listen is None and table.http is None:
        return None
    require_extra()
    address = read_address(listen) if listen else None
    if table_backend(table).features.processes:
        return Beside(supervisor=partial(_beside_supervisor, loader, table, address))
    return Beside(worker=partial(_beside_worker, address))


@asynccontextmanager
async def _beside_supervisor(
    loader: Loader, table: RouteTable, listen: ListenAddress | None, supervisor: Supervisor
) -> AsyncIterator[None]:
    from abe_router.http.http_server import HttpServer
    from abe_router.http.sources import FileSource

    source = FileSource(loader, table, workers=supervisor)
    await source.start()
    try:
        async with HttpServer(source, listen=listen, announce=announcement()):
            yield
    finally:
        await source.stop()


@asynccontextmanager
async def _beside_worker(listen: ListenAddress | None, worker: Worker) -> AsyncIterator[None]:
    from abe_router.http.http_server import HttpServer
    from abe_router.http.sources import OwnSource

    application = worker.application
    source = OwnSource(
        lambda: application.table,
        lambda: application.backend,
        started=lambda: worker.started,
        draining=lambda: worker.draining,
        counters=lambda: application,
    )
    async with HttpServer(source, listen=listen, announce=announcement()):
        yield


def announcement() -> Callable[[str], None] | None:
    """Return the function that prints the link of the first login: on a terminal alone, and not in a log."""
    return (lambda link: print_message(f"log in: {link}")) if sys.stderr.isatty() else None


def read_address(text: str) -> ListenAddress:
    """Return the address of an option; raise CommandError."""
    try:
        return parse_address(text)
    except ValueError as error:
        hint = "write ROUTES before --http" if Path(text).exists() else ""
        raise CommandError(str(error), hint=hint, code=USAGE) from None
