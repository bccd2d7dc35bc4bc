"""A routes file at work inside a program of yours: a web process, a command, a script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.edits.reload import Reloader
from abe_router.messages.message import Message
from abe_router.observe.events import Event, Events, Listener
from abe_router.observe.logs import log_listener
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import Heartbeat
from abe_router.runtime.publish import publish
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class Router:
    """Runs the consumers of a routes file and publishes through it, as long as it is entered.

    Make it with `from_file`, enter it with `async with`, or hand `lifespan` to Starlette or FastAPI. It may
    be entered again after it was left, also in another event loop.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        watch: bool = True,
        drain: float | None = None,
        listeners: Sequence[tuple[tuple[type[Event], ...], Listener]] = (),
    ) -> None:
        self._loader, self._watch, self._drain = loader, watch, drain
        self._listeners = (log_listener(logging.INFO), *listeners)
        self._table = loader.load()
        self._backend: Backend | None = None
        self._consumers: Reconciler | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        *,
        backend: str | None = None,
        consume: bool = True,
        watch: bool = True,
        drain: float | None = None,
        listeners: Sequence[tuple[tuple[type[Event], ...], Listener]] = (),
    ) -> Self:
        """Read a routes file; raise ConfigError with every fault in it.

        `backend` is a URL to use in place of the file's. Without `consume` it only publishes, and no
        handler is imported. With `watch` it follows the file as it changes. `drain`, in seconds, takes the
        place of every route's own drain time. `listeners` are called with the events of the kinds they name.
        """
        kind = Loader if consume else _WithoutConsumers
        loader = kind(Path(path), import_handlers=consume, backend=backend)
        return cls(loader, watch=watch, drain=drain, listeners=listeners)

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table if self._consumers is None else self._consumers.table

    @property
    def backend(self) -> Backend:
        """The backend; raise RuntimeError when the router is not entered."""
        if self._backend is None:
            raise RuntimeError("the router does not run: enter it with `async with`, or by its `lifespan`")
        return self._backend

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Message:
        """Check a payload against the file and append it; return the message.

        It is a Duplicate, and not kept, when one of its key and id was accepted within the key's `dedupe`.
        Raise KeyInvalid, IdInvalid, NoRoute, PayloadUnencodable or PayloadInvalid when it is refused,
        BackendUnavailable when the backend cannot be reached, RuntimeError when the router is not entered.
        """
        return await publish(self.table, self.backend, key, payload, headers=headers, id=id)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[dict[str, Router]]:  # noqa: ARG002
        """Run as long as a web application does: `FastAPI(lifespan=router.lifespan)`.

        It is in the state of each request too, as `request.state.router`.
        """
        async with self:
            yield {"router": self}

    def asgi(self, application: ASGI) -> ASGI:
        """Return an ASGI application that runs the router as long as the server runs.

        It is for applications that know no lifespan, such as Django's.
        """

        async def running(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await application(scope, receive, send)
                return
            await receive()
            try:
                await self.__aenter__()
            except Exception as error:  # noqa: BLE001  unheard, a server would run on without the router
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.__aexit__()
            await send({"type": "lifespan.shutdown.complete"})

        return running

    async def __aenter__(self) -> Self:
        if self._backend is not None:
            raise RuntimeError("the router runs already")
        async with AsyncExitStack() as stack:
            stack.callback(self._forget)
            self._backend = make_backend(self._table.backend, prefix=self._table.prefix)
            await stack.enter_async_context(self._backend)
            presence = Heartbeat(self._backend)
            events = Events([*self._listeners, (Heartbeat.KINDS, presence.hear)])
            self._consumers = Reconciler(self._backend, events)
            reloader = Reloader(self._loader, self._consumers, events)
            if not isinstance(self._loader, _WithoutConsumers):
                stack.push_async_callback(presence.leave)
                await stack.enter_async_context(
                    _aside(
                        "the router says how it is",
                        presence.run(self._consumers, events, lambda: reloader.rejected),
                    )
                )
            stack.push_async_callback(self._stop)
            await self._consumers.apply(self._table)
            if self._watch:
                await stack.enter_async_context(_aside("the routes file is followed", reloader.run()))
                stack.callback(reloader.stop)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _stop(self) -> None:
        """Stop the consumers; handlers that are still running may publish by the table as it was."""
        consumers = self._consumers
        if consumers is not None:
            self._table, self._consumers = consumers.table, None
            await consumers.stop(self._drain)

    def _forget(self) -> None:
        self._backend = None


class _WithoutConsumers(Loader):
    """Reads a routes file for one who only publishes."""

    def load(self) -> RouteTable:
        return replace(super().load(), routes=())


@asynccontextmanager
async def _aside(what: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have something done while inside; what ends it ends nothing else."""
    doing = asyncio.create_task(work, name=what)
    doing.add_done_callback(_tell)
    try:
        yield
    finally:
        doing.cancel()
        await asyncio.wait({doing})


def _tell(done: asyncio.Task[None]) -> None:
    if not done.cancelled() and (error := done.exception()):
        _log.error("%s no longer", done.get_name(), exc_info=error)
