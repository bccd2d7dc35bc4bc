"""Finds the keys that patterns may match.

Publishers of this package note each key, which is news to all processes at once. Streams that other
programs make are found by looking at the whole database now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from abe_router.backends.redis.line import Line
from abe_router.backends.redis.names import Names
from abe_router.backends.redis.registry import Registry
from abe_router.backends.redis.waker import Waker
from abe_router.errors import BackendError

#: Time between two looks at the whole database, in seconds, and how many times longer than a look takes it
#: is at least, so that a huge one is not read all the time.
INTERVAL, _SPARING = 15.0, 20.0
#: How long, in seconds, what a look found counts as fresh, and how long further news is waited for.
_FRESH, _GATHER = 1.0, 0.005


class Discovery:
    """Calls `found` with the keys it had not known."""

    def __init__(
        self,
        line: Line,
        names: Names,
        registry: Registry,
        waker: Waker,
        found: Callable[[Iterable[str]], None],
    ) -> None:
        self._line, self._registry, self._waker, self._found = line, registry, waker, found
        self._loop = asyncio.get_running_loop()
        self.known: set[str] = set()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = -INTERVAL
        self._pause = INTERVAL
        self._news = asyncio.Event()
        #: The stream of news is watched like any other.
        self.stream = names.news
        self.position = b"0-0"

    def stir(self) -> None:
        """There is news."""
        self._news.set()

    def learn(self, keys: Iterable[str]) -> None:
        """Take in keys."""
        if new := [key for key in keys if key not in self.known]:
            self.known.update(new)
            self._found(new)

    async def close(self) -> None:
        """Wait for a look that is under way; without a connection it ends at once."""
        if self._looking:
            await asyncio.wait([self._looking])

    async def refresh(self) -> None:
        """Make sure that `known` is fresh."""
        if self._loop.time() - self._looked_at > _FRESH:
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            await asyncio.shield(self._looking)

    async def run(self) -> None:
        """Keep looking, until cancelled."""
        while True:
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause):
                        await self._news.wait()
                if self._news.is_set():
                    await asyncio.sleep(_GATHER)
                    await self._read_news()
                else:
                    await self.refresh()
            except BackendError:
                await asyncio.sleep(1.0)
                self.stir()  # nobody else does: it rests only once it has read

    async def _read_news(self) -> None:
        """Take in the keys that publishers noted."""
        self._news.clear()
        # The position is read first, so that what is noted meanwhile is news again.
        latest = self._line.send("XREVRANGE", self.stream, "+", "-", "COUNT", 1)
        keys = await self._registry.keys()
        if entries := await latest:
            self.position = entries[0][0]
        self.learn(keys)
        self._waker.rest(self)

    async def _look(self) -> None:
        """Look at the whole database, and note the streams that nobody noted."""
        began = self._loop.time()
        try:
            await self._line.open()
            await self._read_news()
            async for keys in self._registry.streams():
                if unknown := [key for key in keys if key not in self.known]:
                    await self._registry.note(unknown)
                    self.learn(unknown)
            self._looked_at = self._loop.time()
            self._pause = max(INTERVAL, _SPARING * (self._looked_at - began))
        finally:
            self._looking = None
