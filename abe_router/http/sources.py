"""What an HTTP server shows: a routes file and its backend, or the application of its own process.

`FileSource` is for a supervisor, whose workers are other processes, and for `abe-router dashboard`.
`OwnSource` is for a program that runs the consumers itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from abe_router.backend import Backend
from abe_router.config.building.loader import Loader
from abe_router.errors import BackendError, BackendUnavailable, ConfigError
from abe_router.files.watch import Fingerprint, Watch, fingerprint
from abe_router.http.site import Readiness
from abe_router.observe.metrics import WorkersState
from abe_router.operations.access import shared_backend
from abe_router.operations.metrics import Counters
from abe_router.operations.status import is_in_force
from abe_router.routing.table import RouteTable
from abe_router.runtime.background import BackgroundTasks
from abe_router.runtime.heartbeat import WORKERS
from abe_router.text import format_duration

_log = logging.getLogger("abe_router.http")

#: Interval at which the backend is asked for a sign of life, and how long a call may take, in seconds.
PING_EVERY, PING_TIME = 2.0, 5.0
#: How often the workers are asked in a row whether they run an edit, and the interval, in seconds.
LOOKS, LOOK_EVERY = 5, 0.1
#: After this time without an answer, in seconds, the backend counts as unreachable.
SILENT_AFTER = 10.0


class OwnSource:
    """Shows the application of this process; each part is asked for when a request needs it.

    `backend` may raise RuntimeError while the application does not run.
    """

    #: There is no supervisor.
    workers: WorkersState | None = None
    #: The application knows, and its routes say so in the status.
    backend_up: bool | None = None

    def __init__(
        self,
        table: Callable[[], RouteTable],
        backend: Callable[[], Backend],
        *,
        started: Callable[[], bool],
        draining: Callable[[], bool] = lambda: False,
        counters: Callable[[], Counters | None],
    ) -> None:
        self._table, self._backend = table, backend
        self._started, self._draining, self._counters = started, draining, counters

    @property
    def counters(self) -> Counters | None:
        """What counts the work of the routes, None unless the application runs."""
        return self._counters()

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table()

    @property
    def backend(self) -> Backend:
        """The backend. Raise BackendUnavailable unless the application runs."""
        try:
            return self._backend()
        except RuntimeError as error:
            raise BackendUnavailable(str(error)) from None

    @property
    def readiness(self) -> Readiness:
        """The readiness. The program answers, so its event loop runs."""
        return Readiness(started=self._started(), draining=self._draining())


class WorkersView(Counters, Protocol):
    """What a supervisor knows about its workers without asking them."""

    @property
    def workers(self) -> WorkersState:
        """How many workers are wanted and run, and what is wrong with them."""

    @property
    def started(self) -> bool:
        """Whether the routes have run once."""

    @property
    def draining(self) -> bool:
        """Whether the supervisor is about to end."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The reasons for which not all workers run their routes."""


class FileSource:
    """Follows a routes file, without its handlers, and keeps its backend open.

    `loader` imports no handlers. `table` is what it has loaded. An edit with errors changes nothing, and one
    that the workers do not run waits until they do. Without `watch`, no edit counts. `workers` are those of
    this process, if it is a supervisor. The backend stays that of the first table.
    """

    def __init__(
        self, loader: Loader, table: RouteTable, *, workers: WorkersView | None = None, watch: bool = True
    ) -> None:
        self._loader, self._workers, self._is_watching = loader, workers, watch
        #: What counts the work of the workers.
        self.counters: Counters | None = workers
        self.table = table
        self._backend = shared_backend(table)
        self._is_open = False
        self._answered_at = time.monotonic()
        self._watch = Watch(lambda: loader.files)
        self._background = BackgroundTasks()

    @property
    def backend(self) -> Backend:
        """The backend. Raise BackendUnavailable until it is open."""
        if not self._is_open:
            raise BackendUnavailable("the backend cannot be reached since the start")
        return self._backend

    @property
    def readiness(self) -> Readiness:
        """The readiness: of the workers, if there are any, and of the backend."""
        workers = self._workers
        reasons = () if workers is None else workers.missing
        if not self.backend_up:
            silence = format_duration(round(self._silence))
            reasons = (*reasons, f"the backend has not answered for {silence}")
        return Readiness(
            started=workers is None or workers.started,
            draining=workers is not None and workers.draining,
            reasons=reasons,
        )

    @property
    def workers(self) -> WorkersState | None:
        """The workers of the supervisor, None without one."""
        return None if self._workers is None else self._workers.workers

    @property
    def backend_up(self) -> bool:
        """Whether the backend has answered lately."""
        return self._is_open and self._silence <= SILENT_AFTER

    @property
    def _silence(self) -> float:
        return time.monotonic() - self._answered_at

    async def start(self, *, wait: bool = False) -> None:
        """Follow the file, and open the backend. With `wait`, raise BackendError if that fails."""
        if wait:
            await self._open()
        if self._is_watching:
            self._background.start("following the routes file", self._follow)
        self._background.start("watching the backend", self._ping)

    async def stop(self) -> None:
        """Stop, and close the backend."""
        self._watch.stop()
        await self._background.stop()
        await self._backend.close()

    async def _open(self) -> None:
        await self._backend.open()
        self._is_open, self._answered_at = True, time.monotonic()

    async def _ping(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PING_TIME):
                    if not self._is_open:
                        await self._open()
                    elif self._backend.features.key_value:
                        await self._backend.get(WORKERS, "ping")
                    else:
                        await self._backend.status()
                self._answered_at = time.monotonic()
            except (BackendError, TimeoutError) as error:
                _log.debug("the backend does not answer: %s", error)
            await asyncio.sleep(PING_EVERY)

    async def _follow(self) -> None:
        seen: Fingerprint = fingerprint(self._loader.files)
        edit: RouteTable | None = None
        async for changed in self._watch.signs():
            now = fingerprint(self._loader.files)
            if now != seen or changed:
                seen, edit = now, None
                try:
                    edit = await asyncio.to_thread(self._loader.load)
                except ConfigError:
                    pass  # the workers report it, and the old table stays
                except Exception:  # noqa: BLE001  the next edit may be loaded
                    _log.exception("cannot load an edit for the HTTP server")
            if edit is not None and await self._is_in_force(edit):
                self.table, edit = edit, None

    async def _is_in_force(self, edit: RouteTable) -> bool:
        """Return whether an edit counts; wait a little for the workers to put it into force."""
        if not self._is_open:
            return True
        try:
            for _ in range(LOOKS):
                async with asyncio.timeout(PING_TIME):
                    if await is_in_force(self._backend, edit, self.table):
                        return True
                await asyncio.sleep(LOOK_EVERY)
        except (BackendError, TimeoutError):
            return True  # the state of the workers is unknown
        return False
