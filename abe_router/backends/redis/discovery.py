"""Finds the keys that patterns may match.

Publishers of this package record each key, and a stream of new keys wakes all processes. Streams of other
programs are found by a scan of the whole database now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from abe_router.backends.redis.connection import Connection
from abe_router.backends.redis.names import OUTBOX, Names
from abe_router.backends.redis.notifier import Notifier
from abe_router.backends.redis.registry import Registry
from abe_router.backoff import wait_for_event
from abe_router.errors import BackendError
from abe_router.messages.cache import remember

#: Time between two scans of the database, in seconds. After a long scan it is this many times as long, so
#: that a huge database is not scanned all the time.
INTERVAL, _SCAN_FACTOR = 15.0, 20.0
#: How long, in seconds, a scan counts as fresh, and how long further new keys are collected.
_FRESH, _COLLECT = 1.0, 0.005
#: How long, in seconds, a key counts as recorded. To record it again heals a registry that was lost.
_RECORDED = 1.0


class KeyListener(Protocol):
    """A subscription that takes in new keys."""

    def learn(self, keys: Iterable[str]) -> None:
        """Take in the keys that match."""


class Discovery:
    """The known keys; its `listeners` learn those that were not known."""

    def __init__(self, connection: Connection, names: Names, registry: Registry, notifier: Notifier) -> None:
        self._connection, self._registry, self._notifier = connection, registry, notifier
        self._loop = asyncio.get_running_loop()
        self.listeners: set[KeyListener] = set()
        self.known: set[str] = set()
        self._recorded: dict[str, float] = {}
        self._scanning: asyncio.Task[None] | None = None
        self._scanned_at = -INTERVAL
        self._pause = INTERVAL
        self._new_keys = asyncio.Event()
        #: The notifier waits for new keys as for messages.
        self.stream = names.new_keys
        self.position = b"0-0"

    def wake(self) -> None:
        """Read the new keys soon."""
        self._new_keys.set()

    def record(self, keys: Iterable[str]) -> None:
        """Record keys that are about to get messages; raise BackendUnavailable without a connection."""
        now = self._loop.time()
        stale = [
            key for key in keys if now - self._recorded.get(key, -_RECORDED) >= _RECORDED and key != OUTBOX
        ]
        if stale:
            for key in stale:
                remember(self._recorded, key, now)
            self._registry.add_keys(stale)
            self.learn(stale)

    def learn(self, keys: Iterable[str]) -> None:
        """Take in keys, and pass the new ones to the listeners."""
        if new := [key for key in keys if key not in self.known]:
            self.known.update(new)
            for listener in self.listeners:
                listener.learn(new)

    async def close(self) -> None:
        """Wait for a scan that is under way; without a connection it ends at once."""
        if self._scanning:
            await asyncio.wait([self._scanning])

    async def refresh(self) -> None:
        """Make sure that `known` holds each recorded key, and each stream of a scan that is fresh."""
        if self._loop.time() - self._scanned_at > _FRESH:
            await self._scan_once()
        else:
            self.learn(await self._registry.keys())

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        while True:
            try:
                if await wait_for_event(self._new_keys, self._pause):
                    await asyncio.sleep(_COLLECT)
                    await self._read_new_keys()
                elif self._loop.time() - self._scanned_at > _FRESH:
                    await self._scan_once()
            except BackendError:
                await asyncio.sleep(1.0)
                self.wake()  # the notifier does not: it waits for new keys only after the last were read

    async def _read_new_keys(self) -> None:
        """Take in the recorded keys, and wait for more."""
        self._new_keys.clear()
        # The position is read first, so that a key recorded meanwhile counts as new again.
        latest = self._connection.send("XREVRANGE", self.stream, "+", "-", "COUNT", 1)
        keys = await self._registry.keys()
        if entries := await latest:
            self.position = entries[0][0]
        self.learn(keys)
        self._notifier.wait(self)

    async def _scan_once(self) -> None:
        """Scan the database; concurrent calls share one scan."""
        if self._scanning is None:
            self._scanning = asyncio.create_task(self._scan())
        await asyncio.shield(self._scanning)

    async def _scan(self) -> None:
        """Scan the database, and record its streams."""
        began = self._loop.time()
        try:
            await self._connection.open()
            await self._read_new_keys()
            async for keys in self._registry.streams():
                if keys:  # the known ones too, because the server may have lost the set
                    await self._registry.add_keys(keys)
                    self.learn(keys)
            self._scanned_at = self._loop.time()
            self._pause = max(INTERVAL, _SCAN_FACTOR * (self._scanned_at - began))
        finally:
            self._scanning = None
