"""The messages that a provider yields for one group, sorted by route and read on demand."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from abe_router.backends.abstract.envelope import unwrap
from abe_router.errors import BackendUnavailable, PayloadUnencodable
from abe_router.messages.message import Message
from abe_router.messages.pattern import is_wild, matches

_log = logging.getLogger(__name__)

#: Messages that are buffered for one route while another route of the same group wants more. A crash loses
#: them; but with fewer, a slow route delays the others.
MAX_BUFFERED = 10


class MessageQueue(Protocol):
    """A provider for Abstract Backend, as far as it is used here."""

    async def publish(self, key: str, payload: dict[str, Any]) -> None:
        """Send a payload to a routing key."""

    def consume(self, *, group: str | None = None) -> AsyncIterator[Any]:
        """Yield payloads until closed."""


def is_abstract(candidate: object) -> bool:
    """Return whether an object, or a class, has the methods of such a provider."""
    return callable(getattr(candidate, "publish", None)) and callable(getattr(candidate, "consume", None))


class Waiter:
    """A subscription that waits for messages of one pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.future: asyncio.Future[None] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits now."""
        return self.future is not None and not self.future.done()

    def wake(self) -> None:
        """End the wait."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Stream:
    """Reads one group of a provider; `on_end` is called when the provider's messages end for good.

    Without `on_end`, the end is an error like any other: the next `wait` raises it, and the one after that
    starts to read again.
    """

    def __init__(
        self, provider: MessageQueue, group: str | None, name: str, on_end: Callable[[], None] | None
    ) -> None:
        self._provider, self._group, self._name, self._on_end = provider, group, name, on_end
        self._queues: dict[str, deque[Message]] = {}
        self._waiters: set[Waiter] = set()
        self._reading: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._error: BackendUnavailable | None = None

    @property
    def buffered(self) -> int:
        """How many messages were read and not taken."""
        return sum(map(len, self._queues.values()))

    def add(self, waiter: Waiter) -> deque[Message]:
        """Add a waiter; return the queue of its messages."""
        self._waiters.add(waiter)
        return self._queues.setdefault(waiter.pattern, deque())

    async def remove(self, waiter: Waiter) -> None:
        """Remove a waiter; stop reading after the last one."""
        self._waiters.discard(waiter)
        waiter.wake()
        if not self._waiters and self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def wait(self, waiter: Waiter, seconds: float) -> None:
        """Wait for a message, at most `seconds`; raise BackendUnavailable if the provider failed."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        loop = asyncio.get_running_loop()
        waiter.future = loop.create_future()
        timer = loop.call_later(seconds, waiter.wake)
        self._wanted.set()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        try:
            await waiter.future
        finally:
            timer.cancel()

    async def _read(self) -> None:
        payloads: Any = None
        try:
            payloads = self._provider.consume(group=self._group)
            if inspect.isawaitable(payloads):
                payloads = await payloads
            async for payload in payloads:
                self._sort(payload)
                while not self._wants_more():
                    self._wanted.clear()
                    await self._wanted.wait()
            if self._on_end is not None:
                self._on_end()
            else:
                self._error = BackendUnavailable(f"provider `{self._name}` ended its messages")
        except Exception as error:  # noqa: BLE001  a provider may raise anything
            if self._waiters:
                self._error = BackendUnavailable(f"provider `{self._name}`: {type(error).__name__}: {error}")
            else:
                _log.exception("provider `%s` failed while it was stopped", self._name)
        finally:
            self._reading = None
            for waiter in self._waiters:
                waiter.wake()
            if inspect.isasyncgen(payloads):
                await payloads.aclose()

    def _wants_more(self) -> bool:
        full = any(len(self._queues[waiter.pattern]) >= MAX_BUFFERED for waiter in self._waiters)
        return not full and any(waiter.is_waiting for waiter in self._waiters)

    def _sort(self, payload: Any) -> None:
        """Put a message into the queue of each pattern that matches its key."""
        try:
            message = unwrap(payload)
        except PayloadUnencodable as error:
            _log.error("dropped a message from provider `%s`: %s", self._name, error)
            return
        if message.key:
            patterns = [pattern for pattern in self._queues if matches(pattern, message.key)]
        else:
            patterns = list(self._queues) if len(self._queues) == 1 else []
            if patterns and not is_wild(patterns[0]):
                message = Message(message.id, patterns[0], message.body, attempt=1)
        attended = {waiter.pattern for waiter in self._waiters}
        patterns = [p for p in patterns if p in attended or len(self._queues[p]) < MAX_BUFFERED]
        if not patterns:
            which = f"key `{message.key}`" if message.key else "no key"
            _log.error(
                "dropped a message with %s from provider `%s`: no route of group `%s` matches it",
                which,
                self._name,
                self._group,
            )
        for pattern in patterns:
            self._queues[pattern].append(message)
        for waiter in self._waiters:
            if waiter.pattern in patterns:
                waiter.wake()
