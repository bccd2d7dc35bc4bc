"""TestRouter: runs a routes file in memory, for tests of handlers, schemas and the wiring between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from abe_router.application import Application
from abe_router.backend import DeadLetter
from abe_router.backend.substitute import standing_for_all
from abe_router.config.building.loader import Loader
from abe_router.consumer import Around, as_async
from abe_router.messages.message import Message
from abe_router.observe.events import Event
from abe_router.routing.handler import Handler, handler_from
from abe_router.routing.policies import Batch, GiveUp, RetryPolicy, TryAgain
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.publish import AroundPublish
from abe_router.runtime.threads import Threads
from abe_router.testing.recording import RecordingBackend
from abe_router.text import format_duration

#: Longest time that a batch waits for more messages, in seconds.
LONGEST_WAIT = 0.05


@dataclass(slots=True)
class Call:
    """One attempt of a handler: its message, and its result or error once it has ended."""

    message: Message
    result: Any = None
    error: BaseException | None = None

    @property
    def payload(self) -> Any:
        """The payload of the message."""
        return self.message.payload


class TestRouter:
    """Runs the routes of a file in memory, with all of their policies, but without delays: retries, rates.

    `routes` is a file or a table. `handlers` replace handlers of the file, by the name of the route,
    `key/group`. `around` and `around_publish` are those of `Router.from_file`. While it runs, every backend
    that this process makes is its own: a `Router` that the code under test enters publishes to it, and starts
    no consumers. A backend that was made before cannot be opened.

        async with TestRouter("routes.yaml") as router:
            await router.publish("orders.created", {"id": 7, "total": 250})
            await router.quiet()
            assert router.got("orders.created/billing") == [{"id": 7, "total": 250}]
            assert await router.dead("orders.created/billing") == []

    Raise ConfigError if the file has errors, KeyError if it has no such route.
    """

    __test__ = False  # pytest must not collect it

    def __init__(
        self,
        routes: str | PathLike[str] | RouteTable,
        *,
        handlers: Mapping[str, Callable[..., Any]] | None = None,
        around: Around | None = None,
        around_publish: AroundPublish | None = None,
    ) -> None:
        with standing_for_all():
            table = (
                routes if isinstance(routes, RouteTable) else Loader(Path(routes), backend="memory://").load()
            )
        substitutes = {name: handler_from(function) for name, function in (handlers or {}).items()}
        if unknown := substitutes.keys() - table.by_name.keys():
            raise KeyError(f"no route {min(unknown)}; there are: {', '.join(table.by_name)}")
        self._threads: list[Threads] = []
        self._calls: dict[str, list[Call]] = {name: [] for name in table.by_name}
        self.table: RouteTable = replace(
            table, routes=tuple(self._prepared(route, substitutes) for route in table.routes)
        )
        self.backend = RecordingBackend()
        #: All events so far, in order.
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        self._application = Application(
            self.table,
            self.backend,
            listeners=[((Event,), self._record)],
            heartbeat=False,
            around=around,
            around_publish=around_publish,
        )

    async def publish(
        self,
        key: str,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Message:
        """Publish as `Router.publish` does, and raise the same errors."""
        return await self._application.publish(key, payload, headers=headers, id=id, timeout=timeout)

    async def quiet(self, seconds: float = 10.0) -> None:
        """Wait until no message is ready, in flight or delayed; raise TimeoutError after `seconds`."""
        running = {route.name for route in self.table.routes if not route.paused}
        busy: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._changed.clear()
                    busy = [
                        status.name
                        for status in await self.backend.status()
                        if status.ready + status.in_flight + status.delayed and status.name in running
                    ]
                    if not busy:
                        return
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not quiet after {format_duration(seconds)}: {', '.join(busy)}") from None

    def calls(self, route: str) -> list[Call]:
        """Return all attempts of a route's handler, in the order they began; raise KeyError if unknown."""
        return self._calls[self._known(route)]

    def got(self, route: str) -> list[Any]:
        """Return the payload of each attempt of a route's handler; raise KeyError if unknown."""
        return [call.payload for call in self.calls(route)]

    async def dead(self, route: str) -> list[DeadLetter]:
        """Return the dead letters of a route, oldest first; raise KeyError if unknown."""
        key, _, group = self._known(route).partition("/")
        return list(await self.backend.dead_letters(key, group, limit=1_000_000))

    async def __aenter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(standing_for_all(self.backend.lend))
            await self._application.start()
            self._standing = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._standing:
            await self._application.stop(0.0)
            for threads in self._threads:
                threads.shutdown()

    def _prepared(self, route: Route, substitutes: Mapping[str, Handler]) -> Route:
        handler = substitutes.get(route.name, route.handler)
        threads = Threads(route.concurrency, route.name)
        self._threads.append(threads)
        recording = replace(
            handler,
            call=_recording(handler, self._calls[route.name], threads),
            is_async=True,
            wants_message=True,
        )
        batch = route.batch and Batch(route.batch.size, min(route.batch.wait, LONGEST_WAIT))
        retry = _WithoutDelay(**asdict(route.retry))
        return replace(route, handler=recording, retry=retry, batch=batch, rate=None)

    def _known(self, route: str) -> str:
        if route not in self._calls:
            raise KeyError(f"no route {route}; there are: {', '.join(self._calls)}")
        return route

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()


class _WithoutDelay(RetryPolicy):
    """A retry policy whose delays are 0."""

    def decide(self, attempt: int, after: float | None = None) -> TryAgain | GiveUp:
        decision = super().decide(attempt, after)
        return TryAgain(0.0) if isinstance(decision, TryAgain) else decision


def _recording(handler: Handler, calls: list[Call], threads: Threads) -> Callable[..., Any]:
    """Return a function that calls the handler and records each call with its result or error.

    The result or error of a batch handler is recorded for each message of the batch.
    """
    called = as_async(handler, threads)

    async def call(payload: Any, message: Message | list[Message]) -> Any:
        recorded = [Call(each) for each in (message if isinstance(message, list) else [message])]
        calls.extend(recorded)
        try:
            result = await (called(payload, message) if handler.wants_message else called(payload))
        except BaseException as error:
            for each in recorded:
                each.error = error
            raise
        for each in recorded:
            each.result = result
        return result

    return call
