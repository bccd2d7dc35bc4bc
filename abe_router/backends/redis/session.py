"""What a backend has while it is open: its connections, and all that works on them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.dedupe import Deduplicator
from abe_router.backends.redis.discovery import Discovery
from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names, begin_at, consumer_name
from abe_router.backends.redis.publisher import Publisher
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.source import Source
from abe_router.backends.redis.subscription import RedisSubscription
from abe_router.backends.redis.sweep import Sweep
from abe_router.backends.redis.waker import BLOCK, Waker
from abe_router.backends.redis.window import Window
from abe_router.errors import BackendError
from abe_router.messages.pattern import is_wild

_log = logging.getLogger(__name__)

#: Pause before work that failed as nobody expected begins anew, in seconds.
_PAUSE = 1.0

H = TypeVar("H", bound=RedisSubscription)


class Session:
    """Two connections, one for commands and one to wait on, however many subscriptions there are."""

    def __init__(self, address: Address, names: Names) -> None:
        self._names = names
        self.line = Line(address, lost=self._disconnected)
        self._quiet = Line(address, lost=lambda _: None, patience=BLOCK)
        self._waker = Waker(self._quiet, self.line)
        self._sweep = Sweep(self.line, self._waker)
        self._window = Window()
        self.registry = Registry(self.line, names)
        self._discovery = Discovery(self.line, names, self.registry, self._waker, self._found)
        self.publisher = Publisher(
            self.line, names, self.registry, sent=self._waker.ring, noted=self._discovery.learn
        )
        self.deduplicator = Deduplicator(self.line, names, self.publisher)
        self._handles: set[RedisSubscription] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    async def subscribe(self, kind: type[H], pattern: str, group: str, start: float, lease: float) -> H:
        """Make a handle of a kind, and the subscription when it does not exist."""
        await self.line.open()
        self._run(self._waker.run)
        self._run(self._sweep.run)
        now = start == math.inf
        millis, new = await self.registry.enter(pattern, group, None if now else math.ceil(start * 1000))
        if is_wild(pattern):
            self._run(self._discovery.run)
            await self._discovery.refresh()
        else:
            self.registry.note([pattern])
        handle = kind(
            pattern,
            group,
            consumer=consumer_name(lease),
            start=millis,
            lease=lease,
            line=self.line,
            names=self._names,
            sweep=self._sweep,
            waker=self._waker,
            window=self._window,
            publisher=self.publisher,
            lost=self._group_lost,
            closed=self._handles.discard,
        )
        self._handles.add(handle)
        known = self._discovery.known if is_wild(pattern) else [pattern]
        try:
            await handle.make(known, "$" if new and now else begin_at(millis))
        except BaseException:
            await handle.close()
            raise
        return handle

    async def close_handles(self, pattern: str, group: str) -> None:
        """Close the handles on one subscription."""
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
        await self._quiet.close()
        await self.line.close()
        await self._discovery.close()

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done from now on, once."""
        if work.__qualname__ not in self._running:
            self._running[work.__qualname__] = asyncio.create_task(_persist(work))

    def _found(self, keys: Iterable[str]) -> None:
        for handle in self._handles:
            handle.learn(keys)

    def _disconnected(self, why: str) -> None:
        if not self._closed:
            _log.warning("the connection to Redis is gone: %s", why)
        for handle in self._handles:
            handle.reconnect()

    async def _group_lost(self, handle: RedisSubscription, source: Source) -> None:
        """See to it that a group may be made anew, or raise BackendError."""
        pattern, group = handle.pattern, handle.group
        if await self.registry.dropped(pattern, group):
            raise BackendError(f"subscription `{pattern}/{group}` was dropped")
        # Whatever took the group may have taken this with it.
        await self.registry.enter(pattern, group, handle.start)
        await self.registry.note([source.key])


async def _persist(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do something until cancelled; without it messages would stay away, and nobody would be told."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001  whatever it is, the next try may be spared it
            _log.exception("%s failed, and begins anew in %g s", work.__qualname__, _PAUSE)
        await asyncio.sleep(_PAUSE)
