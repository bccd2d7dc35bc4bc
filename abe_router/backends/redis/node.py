"""One Redis server while a backend is open: the connections, and every object that works on them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.answers import UNREADABLE, unreadable
from abe_router.backends.redis.appender import Appender
from abe_router.backends.redis.blocking_connection import BlockingConnection
from abe_router.backends.redis.connection import Connection, FlowControl
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.discovery import Discovery, KeyListener
from abe_router.backends.redis.finder import make_finder
from abe_router.backends.redis.gaps import GapWatch, GroupChanges
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.notifier import BLOCK, Notifier
from abe_router.backends.redis.reaper import Reaper
from abe_router.backends.redis.registry import Registrations, Registry
from abe_router.errors import BackendError
from abe_router.messages.pattern import is_wild
from abe_router.text import format_duration

_log = logging.getLogger(__name__)

#: Delay before background work starts again after an unexpected error, in seconds.
_DELAY = 1.0
#: Time between two questions to the Sentinels while their primary answers, in seconds.
_FOLLOW = 1.0


class Reader(KeyListener, Protocol):
    """What reads the streams of a subscription, as the node sees it."""

    def reconnect(self) -> None:
        """Look at all streams again: the connection was lost, and replies with it."""


class Handle(Protocol):
    """An open subscription, as the node sees it."""

    pattern: str
    group: str

    @property
    def reader(self) -> Reader: ...

    async def close(self) -> None:
        """Close it."""


class Node:
    """Two connections, one for commands and one to wait on, however many subscriptions there are.

    Another one, for threads, is opened when leases are renewed while the event loop is blocked. If appends
    wait for replicas, they have one of their own.
    """

    def __init__(self, address: Address, credentials: Credentials, names: Names) -> None:
        self.names = names
        self._finder = finder = make_finder(address, names)
        self.connection = Connection(address, credentials, finder, lost=self._disconnected)
        self._waiting = Connection(
            address, credentials, finder, lost=lambda _: None, patience=BLOCK, resends=False
        )
        self.for_threads = BlockingConnection(address, credentials, finder)
        self.flow = FlowControl()
        self.notifier = Notifier(self._waiting, self.connection)
        self.reaper = Reaper(self.connection, self.notifier)
        self.changes = GroupChanges(self.connection, names)
        self.gaps = GapWatch(self.connection, self.reaper.groups, self.changes)
        self.registry = Registry(self.connection, names)
        self.registrations = Registrations(self.connection, names, self.registry)
        self.discovery = Discovery(self.connection, names, self.registry, self.notifier)
        replicas = address.replicas
        # A wait for replicas holds up all that is behind it on its connection.
        self._confirming = Connection(address, credentials, finder, lost=lambda _: None) if replicas else None
        #: What messages are appended over, and how many replicas confirm them.
        self.appending, self.replicas = self._confirming or self.connection, replicas
        self.appender = Appender(
            *(self.connection, names, self.discovery, self.notifier),
            confirming=self._confirming,
            replicas=replicas,
            timeout=address.publish_timeout,
        )
        self._handles: set[Handle] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closed = False
        if address.sentinels:
            self._run(self._follow)

    @property
    def place(self) -> str:
        """Where the server is that was found, empty for the one of the URL."""
        return str(self.connection.place) if self._finder.follows and self.connection.up else ""

    async def register(self, pattern: str, group: str, start: float) -> tuple[int, bool]:
        """Register a subscription; return its start in milliseconds, and whether it is new and starts now.

        Afterwards each recorded key is known, so the groups can be created.
        """
        await self.connection.open()
        self._run(self.notifier.run)
        self._run(self.reaper.run)
        self._run(self.registrations.run)
        self._run(self.gaps.run)
        now = start == math.inf
        millis, new = await self.registry.register(pattern, group, None if now else math.ceil(start * 1000))
        if is_wild(pattern):
            self._run(self.discovery.run)
            await self.discovery.refresh()
        else:
            self.registry.add_keys([pattern])
        self.registrations.add(pattern, group, millis)
        return millis, new and now

    def start_notifier(self) -> None:
        """Wake waiters also if there is no subscription."""
        self._run(self.notifier.run)

    def keys(self, pattern: str) -> Sequence[str]:
        """Return the known keys that may match a pattern."""
        return tuple(self.discovery.known) if is_wild(pattern) else (pattern,)

    def add(self, handle: Handle) -> None:
        """Pass new keys and lost connections to a handle."""
        self._handles.add(handle)
        self.discovery.listeners.add(handle.reader)

    def remove(self, handle: Handle) -> None:
        """Forget a handle."""
        self._handles.discard(handle)
        self.discovery.listeners.discard(handle.reader)
        if not any((h.pattern, h.group) == (handle.pattern, handle.group) for h in self._handles):
            self.registrations.remove(handle.pattern, handle.group)

    async def allow_group(self, pattern: str, group: str, start: int, key: str) -> None:
        """Make sure that a lost group may be created again; raise BackendError if it was dropped."""
        if await self.registry.dropped(pattern, group):
            raise BackendError(f"subscription `{pattern}/{group}` was dropped")
        # What deleted the group may have deleted these records too. All come back together: a trim that finds
        # only some of them would remove what the other groups have not settled.
        if await self.registry.start(pattern, group) is None:
            await self.registrations.check()
        await self.registry.register(pattern, group, start)
        await self.registry.add_keys([key])

    async def close_handles(self, pattern: str, group: str) -> None:
        """Close the handles of one subscription."""
        for handle in tuple(self._handles):
            if (handle.pattern, handle.group) == (pattern, group):
                await handle.close()

    async def close(self) -> None:
        """Close everything."""
        for handle in tuple(self._handles):
            await handle.close()
        self._closed = True
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self.for_threads.close()
        await self._waiting.close()
        if self._confirming:
            await self._confirming.close()
        await self.connection.close()
        await self.discovery.close()

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start background work, once."""
        if work.__qualname__ not in self._running:
            self._running[work.__qualname__] = asyncio.create_task(_keep_running(work))

    async def _follow(self) -> None:
        """Leave a primary that the Sentinels do not name any more, though it may still answer."""
        while True:
            await asyncio.sleep(_FOLLOW)
            try:
                primary = await self._finder.find(())
            except BackendError:  # too few Sentinels answer: what is connected stays so
                continue
            for connection in (self.connection, self._waiting, self._confirming):
                if connection and connection.up and connection.place != primary:
                    connection.reset(f"the Sentinels name {primary} as the primary")

    def _disconnected(self, why: str) -> None:
        if not self._closed:
            _log.warning("the connection to Redis is gone: %s", why)
        if self._finder.follows:  # this one has to follow to the same server
            self._waiting.reset(why)
        for handle in self._handles:
            handle.reader.reconnect()


async def _keep_running(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run work until cancelled, again after an unexpected error: without it no message would arrive."""
    while True:
        try:
            await work()
        except UNREADABLE as error:
            delay = format_duration(_DELAY)
            _log.error("%s failed, and begins anew in %s: %s", work.__qualname__, delay, unreadable(error))
        except Exception:  # noqa: BLE001  the next attempt may succeed
            _log.exception("%s failed, and begins anew in %s", work.__qualname__, format_duration(_DELAY))
        await asyncio.sleep(_DELAY)
