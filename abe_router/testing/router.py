"""A routes file run in memory, for tests of handlers, schemas and the wiring between them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from abe_router.backend import DeadLetter
from abe_router.config.building.loader import Loader
from abe_router.messages.message import Message
from abe_router.observe.events import Event, Events
from abe_router.routing.handler import THREADS, Handler, handler_from
from abe_router.routing.policies import Batch, GiveUp, RetryPolicy, TryAgain
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import publish
from abe_router.runtime.reconciler import Reconciler
from abe_router.runtime.threads import Threads
from abe_router.testing.recording import RecordingBackend

#: How long a batch waits for more messages at most, in seconds.
LONGEST_WAIT = 0.05


@dataclass(slots=True)
class Call:
    """One attempt of a handler: what it got, and what came of it once it ended."""

    message: Message
    result: Any = None
    error: BaseException | None = None

    @property
    def payload(self) -> Any:
        """The payload it got."""
        return self.message.payload


class TestRouter:
    """Runs the routes of a file in memory, with all of their policies but the waiting: retries, rates.

    In place of a file it takes a table that was loaded. `handlers` take the place of those of the file, by
    the name of the route, `key/group`.

        async with TestRouter("routes.yaml") as router:
            await router.publish("orders.created", {"id": 7, "total": 250})
            await router.quiet()
            assert router.got("orders.created/billing") == [{"id": 7, "total": 250}]
            assert await router.dead("orders.created/billing") == []

    Raise ConfigError when the file has faults, KeyError when it has no such route.
    """

    __test__ = False  # pytest is not to collect it

    def __init__(
        self,
        routes: str | PathLike[str] | RouteTable,
        *,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        table = routes if isinstance(routes, RouteTable) else Loader(Path(routes), backend="memory://").load()
        substitutes = {name: handler_from(function) for name, function in (handlers or {}).items()}
        if unknown := substitutes.keys() - table.by_name.keys():
            raise KeyError(f"no route {min(unknown)}; there are: {', '.join(table.by_name)}")
        self._threads = Threads(THREADS)
        self._calls: dict[str, list[Call]] = {name: [] for name in table.by_name}
        self.table: RouteTable = replace(
            table, routes=tuple(self._prepared(route, substitutes) for route in table.routes)
        )
        self.backend = RecordingBackend()
        #: Everything that happened so far, in order.
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self._router = Reconciler(self.backend, Events([((Event,), self._note)]))

    async def publish(
        self, key: str, payload: Any, *, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> Message:
        """Publish as a program would; raise what `Reconciler.publish` raises."""
        return await publish(self.table, self.backend, key, payload, headers=headers, id=id)

    async def quiet(self, seconds: float = 10.0) -> None:
        """Wait until nothing waits, runs or is to be tried again; raise TimeoutError after `seconds`."""
        running = {route.name for route in self.table.routes if not route.paused}
        busy: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._news.clear()
                    counts = await self.backend.status()
                    busy = [
                        f"{c.pattern}/{c.group}"
                        for c in counts
                        if c.ready + c.in_flight + c.delayed and f"{c.pattern}/{c.group}" in running
                    ]
                    if not busy:
                        return
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"not quiet after {seconds:g} s: {', '.join(busy)}") from None

    def calls(self, route: str) -> list[Call]:
        """Return every attempt of a route's handler, in the order they began; raise KeyError if unknown."""
        return self._calls[self._known(route)]

    def got(self, route: str) -> list[Any]:
        """Return the payload of every attempt of a route's handler; raise KeyError if unknown."""
        return [call.payload for call in self.calls(route)]

    async def dead(self, route: str) -> list[DeadLetter]:
        """Return the dead letters of a route, oldest first; raise KeyError if unknown."""
        key, _, group = self._known(route).partition("/")
        return list(await self.backend.dead_letters(key, group, limit=1_000_000))

    async def __aenter__(self) -> Self:
        await self._router.apply(self.table)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._router.stop(0.0)
        self._threads.shutdown()
        await self.backend.close()

    def _prepared(self, route: Route, substitutes: Mapping[str, Handler]) -> Route:
        handler = substitutes.get(route.name, route.handler)
        recording = replace(
            handler,
            call=_recording(handler, self._calls[route.name], self._threads),
            is_async=True,
            wants_message=True,
        )
        batch = route.batch and Batch(route.batch.size, min(route.batch.wait, LONGEST_WAIT))
        retry = _AtOnce(**asdict(route.retry))
        return replace(route, handler=recording, retry=retry, batch=batch, rate=None)

    def _known(self, route: str) -> str:
        if route not in self._calls:
            raise KeyError(f"no route {route}; there are: {', '.join(self._calls)}")
        return route

    def _note(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()


class _AtOnce(RetryPolicy):
    """A policy without the waiting."""

    def decide(self, attempt: int, after: float | None = None) -> TryAgain | GiveUp:
        decision = super().decide(attempt, after)
        return TryAgain(0.0) if isinstance(decision, TryAgain) else decision


def _recording(handler: Handler, calls: list[Call], threads: Threads) -> Callable[..., Any]:
    """Return a function that calls the handler and notes what it got and what came of it.

    What a batch handler returns, or raises, is noted at each message of the batch.
    """

    async def call(payload: Any, message: Message | list[Message]) -> Any:
        noted = [Call(each) for each in (message if isinstance(message, list) else [message])]
        calls.extend(noted)
        arguments = (payload, message) if handler.wants_message else (payload,)
        try:
            if handler.is_async:
                result = await handler.call(*arguments)
            else:
                loop, run = asyncio.get_running_loop(), copy_context().run
                result = await loop.run_in_executor(threads, run, handler.call, *arguments)
                result = await result if inspect.isawaitable(result) else result
        except BaseException as error:
            for each in noted:
                each.error = error
            raise
        for each in noted:
            each.result = result
        return result

    return call
