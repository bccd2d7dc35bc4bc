"""What a provider has for one group: read as far as someone asks, sorted by route."""

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

#: Messages that wait for one route while another of the same group asks for more. They are lost in a crash;
#: but with fewer a slow route would hold up the others.
AHEAD = 10


class MessageQueue(Protocol):
    """What Abstract Backend asks of a provider, as far as it is used here."""

    async def publish(self, key: str, payload: dict[str, Any]) -> None:
        """Send a payload to a routing key."""

    def consume(self, *, group: str | None = None) -> AsyncIterator[Any]:
        """Yield payloads until closed."""


def is_abstract(candidate: object) -> bool:
    """Say whether an object, or a class, has the methods of such a provider."""
    return callable(getattr(candidate, "publish", None)) and callable(getattr(candidate, "consume", None))


class Waiter:
    """Someone who waits for messages of one pattern."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.future: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether it waits just now."""
        return self.future is not None and not self.future.done()

    def wake(self) -> None:
        """Let it look again."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Stream:
    """Reads one group of a provider; `on_end` is called when the provider has no more, ever.

    Without `on_end`, the end is an error like any other: the next one who asks gets it, and the one after
    has the provider asked anew.
    """

    def __init__(
        self, provider: MessageQueue, group: str | None, name: str, on_end: Callable[[], None] | None
    ) -> None:
        self._provider, self._group, self._name, self._on_end = provider, group, name, on_end
        self._queues: dict[str, deque[Message]] = {}
        self._waiters: set[Waiter] = set()
        self._reading: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._fault: BackendUnavailable | None = None

    @property
    def kept(self) -> int:
        """How many messages were read and taken by nobody."""
        return sum(map(len, self._queues.values()))

    def enter(self, waiter: Waiter) -> deque[Message]:
        """Admit someone who will ask; return the queue from which to take."""
        self._waiters.add(waiter)
        return self._queues.setdefault(waiter.pattern, deque())

    async def leave(self, waiter: Waiter) -> None:
        """Dismiss someone; when it was the last one, stop reading."""
        self._waiters.discard(waiter)
        waiter.wake()
        if not self._waiters and self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def ask(self, waiter: Waiter, seconds: float) -> None:
        """Wait for news, at most `seconds`; raise BackendUnavailable when the provider failed."""
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        loop = asyncio.get_running_loop()
        waiter.future = loop.create_future()
        timer = loop.call_later(seconds, waiter.wake)
        self._asked.set()
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
                while not self._wanted():
                    self._asked.clear()
                    await self._asked.wait()
            if self._on_end is not None:
                self._on_end()
            else:
                self._fault = BackendUnavailable(f"provider `{self._name}` ended its messages")
        except Exception as error:  # noqa: BLE001  whatever a provider raises
            if self._waiters:
                self._fault = BackendUnavailable(f"provider `{self._name}`: {type(error).__name__}: {error}")
            else:
                _log.exception("provider `%s` failed while it was stopped", self._name)
        finally:
            self._reading = None
            for waiter in self._waiters:
                waiter.wake()
            if inspect.isasyncgen(payloads):
                await payloads.aclose()

    def _wanted(self) -> bool:
        full = any(len(self._queues[waiter.pattern]) >= AHEAD for waiter in self._waiters)
        return not full and any(waiter.waits for waiter in self._waiters)

    def _sort(self, payload: Any) -> None:
        """Put a message into the queue of each pattern that matches."""
        try:
            message = unwrap(payload)
        except PayloadUnencodable as error:
            _log.error("dropped what provider `%s` yielded: %s", self._name, error)
            return
        if message.key:
            patterns = [pattern for pattern in self._queues if matches(pattern, message.key)]
        else:
            patterns = list(self._queues) if len(self._queues) == 1 else []
            if patterns and not is_wild(patterns[0]):
                message = Message(message.id, patterns[0], message.body, attempt=1)
        attended = {waiter.pattern for waiter in self._waiters}
        patterns = [p for p in patterns if p in attended or len(self._queues[p]) < AHEAD]
        if not patterns:
            which = f"key `{message.key}`" if message.key else "no key"
            _log.error(
                "dropped a message with %s from provider `%s`: no route of group `%s` is known to want it",
                which,
                self._name,
                self._group,
            )
        for pattern in patterns:
            self._queues[pattern].append(message)
        for waiter in self._waiters:
            if waiter.pattern in patterns:
                waiter.wake()
