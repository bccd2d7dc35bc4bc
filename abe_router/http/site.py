"""What the endpoints work on: the source of their data, the cached status, and the end of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.responses import Response

from abe_router.backend import Backend
from abe_router.errors import BackendUnavailable
from abe_router.http.event_stream import StreamLimit
from abe_router.http.sampler import Sampler
from abe_router.http.security import Security
from abe_router.observe.metrics import WorkersState
from abe_router.operations.dead_index import DeadLetterIndex
from abe_router.operations.metrics import Counters
from abe_router.operations.status import Status, read_status
from abe_router.routing.table import RouteTable
from abe_router.runtime.failures import FailedAttempt, read_failures

T = TypeVar("T")

#: How long the status of the backend is shared by all clients, in seconds.
FRESH = 1.5
#: How long a client waits for the backend, in seconds.
PATIENCE = 10.0


class Readiness(msgspec.Struct, frozen=True):
    """Whether the router takes part: whether it has started, whether it drains, and what else is missing."""

    started: bool
    draining: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the router is to be counted in a rollout, and to be sent messages."""
        return self.started and not self.draining and not self.reasons


class HttpSource(Protocol):
    """What an HTTP server shows: the supervisor with its workers, one application, or a backend alone."""

    @property
    def table(self) -> RouteTable:
        """The table of the routes file."""

    @property
    def backend(self) -> Backend:
        """The backend, which is open."""

    @property
    def readiness(self) -> Readiness:
        """The readiness, known without asking the backend."""

    @property
    def backend_up(self) -> bool | None:
        """Whether the backend has answered lately; None if that is not watched."""

    @property
    def counters(self) -> Counters | None:
        """What counts the work of the routes; None if no consumers belong to this server."""

    @property
    def workers(self) -> WorkersState | None:
        """The workers of a supervisor, None without one."""


class SharedAnswer(Generic[T]):
    """An answer of the backend that all clients share: one request at a time, and none while it is fresh.

    An error is shared by those that wait for it.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], *, fresh: float = FRESH) -> None:
        self._read, self._fresh = read, fresh
        self._task: asyncio.Task[T] | None = None
        self._fresh_until = 0.0

    async def get(self) -> T:
        """Return the answer; raise BackendUnavailable if it takes too long."""
        task = self._task
        if task is None or (task.done() and time.monotonic() >= self._fresh_until):
            task = self._task = asyncio.create_task(self._ask())
            # All that waited may have gone; then the error concerns no request.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Ask anew for the next client, because an action has changed the answer."""
        self._fresh_until = 0.0

    async def _ask(self) -> T:
        self._fresh_until = 0.0
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._read()
        except TimeoutError:
            raise BackendUnavailable("the backend does not answer") from None
        self._fresh_until = time.monotonic() + self._fresh
        return answer


@dataclass
class Site:
    """The parts of one HTTP server that the endpoints share.

    `closing` is set when the server is about to end: streams of events end then. `streams` counts them.
    """

    source: HttpSource
    security: Security
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    streams: StreamLimit = field(default_factory=StreamLimit)

    def __post_init__(self) -> None:
        self.status: SharedAnswer[Status] = SharedAnswer(self._read_status)
        self.sampler = Sampler(lambda: self.source.backend, lambda: self.source.counters, self.status.get)
        self.failures: SharedAnswer[Mapping[str, Sequence[FailedAttempt]]]
        self.failures = SharedAnswer(lambda: read_failures(self.source.backend))
        self.dead_letters = DeadLetterIndex(lambda: self.source.backend)
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Sample what the routes do, until `close`."""
        self.run(self.sampler.run())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background that a request has started. `close` cancels it."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Cancel what runs in the background, and wait for its end."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_status(self) -> Status:
        return await read_status(self.source.table, self.source.backend)


def json_response(value: Any, status: int = 200) -> Response:
    """Return a value of an operation as an answer in JSON."""
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")
