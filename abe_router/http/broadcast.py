"""One stream of events for any number of clients: it is computed once, and only while a client watches.

States of a broadcast: *idle*, without subscribers, when nothing runs; and *running*, from the first
subscriber to the last, when one task computes the events. The events go into the queue of each subscriber,
which is bounded: if a client is too slow, its oldest events are dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

import msgspec

from abe_router.errors import AbeRouterError
from abe_router.text import mask_credentials

_log = logging.getLogger("abe_router.http")

#: Most bytes of the events that wait for one client. One event may be longer.
QUEUE_SIZE = 1024 * 1024

#: Makes the events, each as it is sent.
Produce = Callable[[], AsyncGenerator[bytes, None]]


def format_event(name: str, value: object, id: str = "") -> bytes:
    """Return an event in the format of `text/event-stream`. Its data is JSON, which has no line breaks."""
    head = f"id: {id}\nevent: {name}\n" if id else f"event: {name}\n"
    return b"%bdata: %b\n\n" % (head.encode(), msgspec.json.encode(value))


class Subscriber:
    """The events that wait for one client."""

    def __init__(self, capacity: int = QUEUE_SIZE) -> None:
        self._capacity, self._size, self._dropped = capacity, 0, 0
        self._events: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._has_ended = False

    def put(self, event: bytes) -> None:
        """Add an event; drop the oldest ones if they are too long together."""
        self._events.append(event)
        self._size += len(event)
        while self._size > self._capacity and len(self._events) > 1:
            self._size -= len(self._events.popleft())
            self._dropped += 1
        self._filled.set()

    def end(self) -> None:
        """Note that no more events come."""
        self._has_ended = True
        self._filled.set()

    async def take(self) -> bytes:
        """Return all events that wait, once there is one; empty if no more come.

        An event `dropped` before them says how many were dropped.
        """
        await self._filled.wait()
        taken = b"".join(self._events)
        if self._dropped:
            taken = format_event("dropped", {"events": self._dropped}) + taken
        self._events.clear()
        self._size, self._dropped = 0, 0
        if not self._has_ended:
            self._filled.clear()
        return taken


class Broadcast:
    """Passes the events of `produce` to its subscribers.

    `first` returns what a subscriber gets first, if others watch already. An error of the package ends the
    stream of every subscriber, with an event `error`.
    """

    def __init__(self, produce: Produce, *, first: Callable[[], bytes] = lambda: b"") -> None:
        self._produce, self._first = produce, first
        self._subscribers: set[Subscriber] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no client watches."""
        return not self._subscribers

    @contextmanager
    def subscribe(self) -> Iterator[Subscriber]:
        """Yield a subscriber, and forget it at the end."""
        subscriber = Subscriber()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="broadcast")
        elif event := self._first():
            subscriber.put(event)
        self._subscribers.add(subscriber)
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            if self.is_idle:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        this = asyncio.current_task()
        try:
            async with aclosing(self._produce()) as events:
                async for event in events:
                    for subscriber in self._subscribers:
                        subscriber.put(event)
        except AbeRouterError as error:
            for subscriber in self._subscribers:
                subscriber.put(format_event("error", {"detail": mask_credentials(str(error))}))
        except Exception:  # noqa: BLE001  an error of one stream must not reach the server
            _log.exception("a stream of events failed")
        finally:
            if self._task is this:  # otherwise it was cancelled, and another may run by now
                for subscriber in self._subscribers:
                    subscriber.end()
