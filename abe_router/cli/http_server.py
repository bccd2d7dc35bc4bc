"""Starting the HTTP server for a command."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from abe_router.backoff import wait_for_event
from abe_router.cli.errors import USAGE, CommandError
from abe_router.cli.output import print_message
from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
from abe_router.files.watch import fingerprint
from abe_router.operations.access import table_backend
from abe_router.process.supervisor import Supervisor
from abe_router.process.worker import Worker
from abe_router.routing.http_options import HttpOptions, ListenAddress, parse_address
from abe_router.routing.table import RouteTable

_log = logging.getLogger("abe_router.http")

#: How often the option `http` is compared, in seconds.
LOOK_EVERY = 0.5
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
    """What serves the API beside a supervisor, and what does in a worker without one.

    Each serves as long as the file or the command line asks for it. With `asked`, they do so at the start,
    and processes can share the backend: then a supervisor is wanted for one worker too.
    """

    asked: bool
    supervisor: Callable[[Supervisor], AbstractAsyncContextManager[object]]
    worker: Callable[[Worker], AbstractAsyncContextManager[object]]


def plan_server(
    routes: Path, listen: str | None, *, backend: str | None, trust_writable: bool, watch: bool
) -> Beside | None:
    """Return what serves the API; None if the file has errors, which the workers report, with handlers.

    `listen` is the address of the command line, empty for that of the file. The handlers are not imported.
    """
    loader = Loader(
        routes, import_handlers=False, backend=backend, trust_writable=trust_writable, tests="off"
    )
    table = None
    try:
        if listen is not None or mentions_http(routes):
            table = loader.load()
    except ConfigError:
        return None
    is_asked = listen is not None or (table is not None and table.http is not None)
    if is_asked:
        require_extra()
    address = read_address(listen) if listen else None
    always = listen is not None
    return Beside(
        asked=is_asked and table is not None and table_backend(table).features.processes,
        supervisor=lambda supervisor: _SupervisorServer(
            supervisor, loader, table, listen=address, always=always, watch=watch
        ),
        worker=lambda worker: _WorkerServer(worker, table, listen=address, always=always),
    )


class _FileServer(ABC):
    """Serves the API from entering to leaving, while the file asks for it; with `always`, all the time.

    States: off, on. A server that cannot start when this is entered raises its error. One that cannot start
    after an edit is logged, and tried again.
    """

    def __init__(self, *, listen: ListenAddress | None, always: bool) -> None:
        self._listen, self._always = listen, always
        self._server: AbstractAsyncContextManager[object] | None = None
        self._stopping = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    @abstractmethod
    async def _read_options(self) -> HttpOptions | None:
        """Return the option `http` of the file."""

    @abstractmethod
    def _serve(self) -> AbstractAsyncContextManager[object]:
        """Return the server, which runs while it is entered."""

    async def __aenter__(self) -> None:
        if self._always or await self._read_options():
            await self._begin()
        self._following = asyncio.create_task(self._follow(), name="http option")

    async def __aexit__(self, *_: object) -> None:
        self._stopping.set()
        if self._following is not None:
            await self._following
        await self._end()

    async def _follow(self) -> None:
        logged = ""
        while not self._always and not await wait_for_event(self._stopping, LOOK_EVERY):
            try:
                options = await self._read_options()
                if options and self._server is None:
                    require_extra()
                    await self._begin()
                elif self._server is not None and not options:
                    await self._end()
                    _log.info("the HTTP server has ended: the routes file has no `http`")
                logged = ""
            except Exception as error:  # noqa: BLE001  the next attempt may succeed
                if logged != (logged := str(error)):
                    _log.error("the HTTP server cannot start: %s", error)

    async def _begin(self) -> None:
        server = self._serve()
        await server.__aenter__()
        self._server = server

    async def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.__aexit__(None, None, None)


class _SupervisorServer(_FileServer):
    """The server beside a supervisor. While it is off, it reads the file only after a change.

    An edit begins serving once a worker runs it.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        loader: Loader,
        table: RouteTable | None,
        *,
        listen: ListenAddress | None,
        always: bool,
        watch: bool,
    ) -> None:
        super().__init__(listen=listen, always=always)
        self._supervisor, self._loader, self._table, self._watch = supervisor, loader, table, watch
        self._seen, self._is_edit = fingerprint(loader.files), False
        #: Returns the table of the server that runs.
        self._table_of_server: Callable[[], RouteTable] | None = None

    async def _read_options(self) -> HttpOptions | None:
        if self._table_of_server is not None:
            self._table = self._table_of_server()
            return self._table.http
        if self._watch and fingerprint(self._loader.files) != self._seen:
            self._is_edit, self._table, before = True, None, fingerprint([self._loader.path])
            if mentions_http(self._loader.path):
                with suppress(ConfigError):  # the workers report it
                    self._table = await asyncio.to_thread(self._loader.load)
            self._seen = fingerprint(self._loader.files) | before  # it may have changed meanwhile
        if self._table is None or (self._is_edit and not self._supervisor.runs(self._table.revision)):
            return None
        return self._table.http

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        from abe_router.http.http_server import HttpServer
        from abe_router.http.sources import FileSource

        assert self._table is not None
        source = FileSource(self._loader, self._table, workers=self._supervisor, watch=self._watch)
        server = HttpServer(source, listen=self._listen, always=self._always, announce=announcement())
        try:
            async with server:
                await source.start()
                self._table_of_server = lambda: source.table
                yield
        finally:
            self._table_of_server = None
            await source.stop()


class _WorkerServer(_FileServer):
    """The server in a worker without a supervisor. Until the routes run, it serves the first table."""

    def __init__(
        self, worker: Worker, table: RouteTable | None, *, listen: ListenAddress | None, always: bool
    ) -> None:
        super().__init__(listen=listen, always=always)
        self._worker, self._first = worker, table or worker.application.table

    async def _read_options(self) -> HttpOptions | None:
        return self._table().http

    def _table(self) -> RouteTable:
        return self._worker.application.table if self._worker.started else self._first

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        from abe_router.http.http_server import HttpServer
        from abe_router.http.sources import OwnSource

        worker, application = self._worker, self._worker.application
        source = OwnSource(
            self._table,
            lambda: application.backend,
            started=lambda: worker.started,
            draining=lambda: worker.draining,
            counters=lambda: application,
        )
        async with HttpServer(source, listen=self._listen, always=self._always, announce=announcement()):
            if worker.features.processes:
                _log.warning("until a restart, the HTTP server shares the event loop of the handlers")
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
