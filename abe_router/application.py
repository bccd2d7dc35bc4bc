"""A routes file at work in this process: `Application`, and `Router`, which embeds it in a program."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Self

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.config.building.loader import Loader
from abe_router.consumer import Around
from abe_router.diagnostic import Diagnostic
from abe_router.edits.history import EditRecorder
from abe_router.edits.overrides import OverrideFollower
from abe_router.edits.reload import Reloader
from abe_router.messages.message import Message
from abe_router.observe.events import Events, Reloaded, ReloadRejected, Subscribed
from abe_router.observe.logs import log_listener
from abe_router.observe.tally import ProcessCounts, ProcessTally, RouteCounts
from abe_router.observe.tracing import Tracing
from abe_router.operations import overrides
from abe_router.operations.audit import Author, local_author
from abe_router.operations.overrides import DEFAULT_SECONDS, OverrideResult
from abe_router.routing.table import RouteTable
from abe_router.runtime.background import BackgroundTasks
from abe_router.runtime.heartbeat import Heartbeat
from abe_router.runtime.publish import AroundPublish, publish, traced
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ASGI = Callable[[Any, Any, Any], Awaitable[None]]


class Application:
    """Runs the consumers of a table on a backend: the parts that `serve`, Router and TestRouter share.

    With a `loader`, it follows the files of the table. With `heartbeat`, it reports itself, and each table
    that it accepts, to a backend that has a key-value store, and follows the overrides there; `number` is its
    number under a supervisor, 0 if it has none. If the program has set a tracer provider by now, messages are
    traced. Following and reporting are background tasks: an error in one of them is logged and never ends the
    application.
    """

    def __init__(
        self,
        table: RouteTable,
        backend: Backend,
        *,
        loader: Loader | None = None,
        listeners: Sequence[Subscribed] = (),
        heartbeat: bool = True,
        number: int = 0,
        around: Around | None = None,
        around_publish: AroundPublish | None = None,
    ) -> None:
        self._first, self._around_publish = table, around_publish
        self._tracing = Tracing.if_set_up()
        edited = asyncio.Event()
        wake = ((Reloaded, ReloadRejected), lambda _: edited.set())
        self._tally = ProcessTally()
        counted = (ProcessTally.KINDS, self._tally.on_event)
        events = Events([*listeners, wake, counted])
        self.backend = backend
        self.background = BackgroundTasks()
        self.reconciler = Reconciler(backend, events, around=around, tracing=self._tracing)
        self._heartbeat: Heartbeat | None = None
        self._recorder: EditRecorder | None = None
        self._overrides: OverrideFollower | None = None
        if heartbeat and backend.features.key_value:
            overrides = self._overrides = OverrideFollower(
                backend, self.reconciler, events, changed=edited, reports=number < 2
            )
            self._heartbeat = Heartbeat(
                backend,
                self.reconciler,
                events,
                edited=edited,
                rejected=lambda: self.rejected,
                obeyed=lambda: overrides.obeyed,
                outdated=lambda: () if self._reloader is None else self._reloader.outdated(),
                number=number,
            )
            self._recorder = EditRecorder(backend, number=number)
        self._reloader: Reloader | None = None
        if loader is not None:
            self._reloader = Reloader(loader, self.reconciler, events, recorder=self._recorder)
        self._cleanup = AsyncExitStack()
        self._drain: float | None = None
        self._abandoned = 0

    @property
    def table(self) -> RouteTable:
        """The table in force; after `stop`, the last one."""
        return self.reconciler.table

    @property
    def rejected(self) -> Sequence[Diagnostic]:
        """The diagnostics of the last edit; empty if it was accepted."""
        return () if self._reloader is None else self._reloader.rejected

    def counts(self) -> Mapping[str, RouteCounts]:
        """Return what each route has done in this process, by name; after `stop`, the last counts."""
        return self.reconciler.counts()

    def process_counts(self) -> ProcessCounts:
        """Return what this process has met, all routes together."""
        stalls = self.reconciler.stalls
        return self._tally.counts(stalls=stalls.stalls, stalled_seconds=stalls.stalled_seconds)

    async def start(self) -> None:
        """Open the backend, start the consumers, then the background tasks.

        Raise BackendError if the backend cannot be opened; nothing is left running then.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.backend.close)
            await self.backend.open()
            if self._heartbeat is not None:
                stack.push_async_callback(self._heartbeat.leave)
            stack.push_async_callback(self.background.stop)
            stack.push_async_callback(self._stop_consumers)
            try:
                await self.refresh_overrides()  # before a consumer starts that may be paused
            except Exception:  # noqa: BLE001  an error of a provider, which must not keep the routes from running
                _log.exception("cannot read the overrides, the routes start without them")
            if self._overrides is not None:
                self.background.start("following overrides", self._overrides.run)
            await self.reconciler.apply(self._first)
            if self._recorder is not None:
                self._recorder.accept(self._first)
            if self._heartbeat is not None:
                self.background.start("the heartbeat", self._heartbeat.run)
            if self._recorder is not None:
                self.background.start("recording edits", self._recorder.run)
            if self._reloader is not None:
                self.background.start("following the routes file", self._reloader.run)
                stack.callback(self._reloader.stop)
            self._cleanup = stack.pop_all()

    async def stop(self, drain: float | None = None) -> int:
        """Stop what `start` has started, in reverse order; return how many handlers were still running.

        Each route has its own drain time, or `drain` seconds. Running handlers may publish until the end.
        """
        self._drain = drain
        await self._cleanup.aclose()
        return self._abandoned

    async def publish(
        self, key: str, payload: Any, *, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> Message:
        """Check a payload against the table in force and append it; see `runtime.publish.publish`."""
        around, tracing = self._around_publish, self._tracing
        if tracing is not None and tracing.wants_to_publish(headers):
            around = traced(tracing, around)
        return await publish(self.table, self.backend, key, payload, headers=headers, id=id, around=around)

    async def refresh_overrides(self) -> None:
        """Read the overrides in the backend, and put them into force now."""
        if self._overrides is not None:
            await self._overrides.refresh()

    async def _stop_consumers(self) -> None:
        self._abandoned = await self.reconciler.stop(self._drain)


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
            backend: A URL that replaces the file's backend.
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
        loader = kind(Path(path), import_handlers=consume, backend=backend)
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
    ) -> Message:
        """Check a payload against the file and append it; return the message.

        It is a Duplicate, and not kept, if a message with the same key and id was accepted within the
        `dedupe` window of the key. Raise KeyInvalid, IdInvalid, NoRoute, PayloadUnencodable or PayloadInvalid
        if it is refused, BackendUnavailable if the backend cannot be reached, RuntimeError if the router is
        not entered.
        """
        return await self._running.publish(key, payload, headers=headers, id=id)

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
        application = Application(
            self._table,
            make_backend(self._table.backend, prefix=self._table.prefix),
            loader=self._loader if self._watch else None,
            listeners=self._listeners,
            heartbeat=not isinstance(self._loader, _WithoutConsumers),
            around=self._around,
            around_publish=self._around_publish,
        )
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
            self._table, self._application = application.table, None

    @property
    def _running(self) -> Application:
        if self._application is None:
            raise RuntimeError("the router does not run: enter it with `async with`, or by its `lifespan`")
        return self._application


class _WithoutConsumers(Loader):
    """Reads a routes file for a router that only publishes."""

    def load(self) -> RouteTable:
        return replace(super().load(), routes=())
