"""A router at work on a backend, for the targets that follow a message through its life."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from abe_router.backend import Backend
from abe_router.messages.message import Message
from abe_router.observe.events import DeadLettered, Event, Events, Handled
from abe_router.routing.handler import handler_from
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

#: How long a message may take to be handled, in seconds. It takes milliseconds if nothing is wrong.
LONGEST = 20.0


class Working:
    """Runs one route on an open backend, and records how each message ends.

    `handle` is called with each message that the route delivers.
    """

    def __init__(self, backend: Backend, pattern: str, handle: Callable[[Message], Awaitable[None]]) -> None:
        async def handler(_: object, message: Message) -> None:
            await handle(message)

        retry = RetryPolicy(attempts=1, initial=0.01)
        route = Route(pattern, "g", handler_from(handler), retry=retry, concurrency=1, lease=30.0, drain=1.0)
        self._table = RouteTable(routes=(route,), keys=(pattern,), unrouted="allow")
        self._reconciler = Reconciler(backend, Events([((Handled, DeadLettered), self._record)]))
        self._changed = asyncio.Event()
        #: By the id of a message, how often it was handled and how often it became a dead letter.
        self.handled: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        await self._reconciler.apply(self._table)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reconciler.stop(0.0)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds that a new event may make true; raise TimeoutError with `what`."""
        try:
            async with asyncio.timeout(LONGEST):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not within {LONGEST:g} s: {what}") from None

    def _record(self, event: Event) -> None:
        if isinstance(event, Handled):
            self.handled[event.message_id] += 1
        elif isinstance(event, DeadLettered):
            self.dead[event.message_id] += 1
        self._changed.set()
