"""`Router` embeds a routes file in a program: it runs the consumers of the file, and publishes through it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

from abe_router.application import Application
from abe_router.backend import Backend
from abe_router.backend.substitute import substitute
from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.consumer import Around
from abe_router.messages.message import Message
from abe_router.observe.events import Subscribed
from abe_router.observe.logs import log_listener
from abe_router.operations import overrides
from abe_router.operations.audit import Author, local_author
from abe_router.operations.overrides import DEFAULT_SECONDS, OverrideResult
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import AroundPublish

_log = logging.getLogger("abe_router")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class Router:
    """Runs the consumers of a routes file, and publishes through the file, inside a program of yours.

    Create it with `from_file`. Enter it with `async with`, or pass `lifespan` to Starlette or FastAPI. It can
    be entered again after it was left, also in another event loop.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        watch: bool = True,
        drain: float | None = None,
        listeners: Sequence[Subscribed] = (),
        around: Around | None = None,
        around_publish: AroundPublish | None = None,
    ) -> None:
        self._loader, self._watch, self._drain = loader, watch, drain
        self._listeners = (log_listener(logging.INFO), *listeners)
        self._around, self._around_publish = around, around_publish
        self._table = loader.load()
        self._application: Application | None = None
        self._in_test = False

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        *,
        backend: str | None = None,
        consume: bool = True,
        watch: bool = True,
        drain: float | None = None,
        listeners: Sequence[Subscribed] = (),
        around: Around | None = None,
        around_publish: AroundPublish | None = None,
    ) -> Self:
        """Read a routes file; raise ConfigError with all of its errors.

        Args:
            path: The routes file.
            backend: A URL that takes precedence over `$ABE_ROUTER_BACKEND` and the file.
            consume: False to publish only; then no handler is imported.
            watch: Whether to follow edits of the file.
            drain: Seconds that replace the drain time of every route.
            listeners: Pairs of the kinds of events, and the function to call with each of them.
            around: Called with the deliveries of each attempt, one or those of a batch; returns an async
                context manager that wraps the call of the handler.
            around_publish: Called with each message before it is appended; returns an async context manager
                that wraps the append and yields the message to append, which may have more headers. Emitted
                messages do not pass it: they are appended in the step that settles their cause.

        """
        kind = Loader if consume else _WithoutConsumers
        loader = kind(Path(path), import_handlers=consume, backend=backend, tests="warn")
        return cls(
            loader,
            watch=watch,
            drain=drain,
            listeners=listeners,
            around=around,
            around_publish=around_publish,
        )

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table if self._application is None else self._application.table

    @property
    def backend(self) -> Backend:
        """The backend; raise RuntimeError if the router is not entered."""
        return self._running.backend

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Check a payload against the file and append it; return the message.

        It is a Duplicate, and not kept, if a message with the same key and id was accepted within the
        `dedupe` window of the key. `timeout`, in seconds, replaces the time limit of the backend, which is
        `?timeout=` in its URL or 5 s. Raise KeyInvalid, IdInvalid, NoRoute, PayloadUnencodable or
        PayloadInvalid if it is refused, PublishTimeout at the limit, BackendUnavailable if the backend cannot
        be reached, RuntimeError if the router is not entered.
        """
        return await self._running.publish(key, payload, headers=headers, id=id, timeout=timeout)

    async def pause(self, route: str, *, why: str, seconds: float = DEFAULT_SECONDS) -> OverrideResult:
        """Pause a route, or the routes that match a pattern, for a time: what `abe-router pause` does.

        It is the way to pause routes on `memory://`, which no other process can reach. Raise OperationRefused
        or UnknownRoute, BackendUnavailable if the backend cannot be reached, and RuntimeError if the router
        is not entered.
        """
        return await self._override(partial(overrides.pause, route=route, why=why, seconds=seconds))

    async def limit(
        self, route: str, rate: float, *, why: str, seconds: float = DEFAULT_SECONDS
    ) -> OverrideResult:
        """Limit a route to `rate` messages a second for a time; otherwise as `pause`."""
        return await self._override(
            partial(overrides.limit, route=route, rate=rate, why=why, seconds=seconds)
        )

    async def resume(self, route: str, *, why: str = "") -> OverrideResult:
        """End the pause and the limit of a route; otherwise as `pause`."""
        return await self._override(partial(overrides.resume, route=route, why=why))

    async def _override(self, act: Callable[..., Awaitable[OverrideResult]]) -> OverrideResult:
        running, author = self._running, Author(local_author().name, "a program")
        result = await act(running.table, running.backend, author=author)
        await running.refresh_overrides()  # a router that has just been entered has not reported itself yet
        return result

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[dict[str, Router]]:  # noqa: ARG002
        """Run as long as a web application: `FastAPI(lifespan=router.lifespan)`.

        The state of each request has the router too, as `request.state.router`.
        """
        async with self:
            yield {"router": self}

    def asgi(self, application: ASGI) -> ASGI:
        """Return an ASGI application that runs the router as long as the server runs.

        It is for applications that do not support the lifespan protocol, such as Django's.
        """

        async def running(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await application(scope, receive, send)
                return
            await receive()
            try:
                await self.__aenter__()
            except Exception as error:  # noqa: BLE001  otherwise the server starts without the router
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.__aexit__()
            await send({"type": "lifespan.shutdown.complete"})

        return running

    def http_app(self) -> ASGI:
        """Return the HTTP API as an ASGI application: `app.mount("/router", router.http_app())` in FastAPI.

        It needs the extra `http`. Its tokens, hosts and origins are those of `http` in the routes file.
        Without tokens there, it keeps one in the file `.abe-router.token` beside the routes file.
        """
        from abe_router.http.http_server import embedded_app
        from abe_router.http.sources import OwnSource

        return embedded_app(
            OwnSource(
                lambda: self.table,
                lambda: self.backend,
                started=lambda: self._application is not None,
                counters=lambda: self._application,
            )
        )

    async def __aenter__(self) -> Self:
        if self._application is not None:
            raise RuntimeError("the router runs already")
        backend = make_backend(self._table.backend, prefix=self._table.prefix)
        self._in_test = substitute() is not None  # whose own consumers run
        application = Application(
            replace(self._table, routes=()) if self._in_test else self._table,
            backend,
            loader=self._loader if self._watch and not self._in_test else None,
            listeners=self._listeners,
            heartbeat=not (self._in_test or isinstance(self._loader, _WithoutConsumers)),
            around=self._around,
            around_publish=self._around_publish,
        )
        _log.info("backend %s", self._table.shown_backend)
        self._application = application  # handlers may publish while the other consumers start
        try:
            await application.start()
        except BaseException:
            self._application = None
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        application = self._application
        if application is None:
            return
        try:
            await application.stop(self._drain)
        finally:
            self._application = None
            if not self._in_test:
                self._table = application.table

    @property
    def _running(self) -> Application:
        if self._application is None:
            raise RuntimeError("the router does not run: enter it with `async with`, or by its `lifespan`")
        return self._application


class _WithoutConsumers(Loader):
    """Reads a routes file for a router that only publishes."""

    def load(self) -> RouteTable:
        return replace(super().load(), routes=())
