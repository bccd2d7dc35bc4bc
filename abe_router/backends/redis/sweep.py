"""Looks after what no new message announces: retries that fall due, leases that ran out, lost groups.

It runs on a timer, whatever the traffic, and asks for all subscriptions of this process in a few calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import islice

from abe_router.backends.redis.line import Line
from abe_router.backends.redis.loss import Losses
from abe_router.backends.redis.scripts import LOOK, REAP
from abe_router.backends.redis.source import Source
from abe_router.backends.redis.waker import Waker
from abe_router.errors import BackendError

#: Longest time between two looks, in seconds; shorter leases are looked at more often.
INTERVAL, SHORTEST = 1.0, 0.05
#: How far ahead, in milliseconds, the server says what falls due, so that it is met on the dot.
HORIZON = 1500
#: Streams in one call, which must be short, for the server does nothing else meanwhile.
_CHUNK = 100
#: How often, in seconds, consumers that are gone are removed, and how long, in milliseconds, they must have
#: been. They hold nothing, so this is about tidiness.
_REAPING, _GONE = 300.0, 3_600_000


class Sweep:
    """Marks sources when something is to be claimed or restored."""

    def __init__(self, line: Line, waker: Waker) -> None:
        self._line, self._waker = line, waker
        #: What is told of groups that were made anew.
        self.losses = Losses()
        self._loop = asyncio.get_running_loop()
        self._sources: dict[Source, None] = {}
        self._peers: dict[tuple[str, str], set[Source]] = {}
        # With their times: a handle of uvloop's knows none when it is due within the millisecond.
        self._timers: dict[tuple[str, str], tuple[float, asyncio.Handle]] = {}
        self._reaped_at = self._loop.time()
        self._shortest = HORIZON
        self._shorter = asyncio.Event()

    def add(self, source: Source) -> None:
        """Look after a source."""
        self._sources[source] = None
        if source.lease < self._shortest:
            self._shorter.set()
        self._peers.setdefault((source.stream, source.group), set()).add(source)

    def remove(self, source: Source) -> None:
        """Look after it no more."""
        self._sources.pop(source, None)
        name = source.stream, source.group
        if (peers := self._peers.get(name)) is not None:
            peers.discard(source)
            if not peers:
                del self._peers[name]
                self._cancel(name)

    def expect(self, source: Source, seconds: float) -> None:
        """Mark the source, and the others of its subscription, as holding something in so many seconds."""
        name = source.stream, source.group
        if seconds <= 0:
            self._mark(name)
            return
        at = self._loop.time() + seconds
        if name in self._timers and self._timers[name][0] <= at:
            return
        self._cancel(name)
        self._timers[name] = at, self._loop.call_at(at, self._mark, name)

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        try:
            while True:
                await self._pause()
                await self._round()
        finally:
            self.losses.tell()

    async def _round(self) -> None:
        try:
            await self.look()
            if self._loop.time() - self._reaped_at > _REAPING:
                self._reaped_at = self._loop.time()
                await self._reap()
        except BackendError:
            return  # whoever fetches is told of it
        if not self._waker.up:
            self._waker.ring_all()

    async def _pause(self) -> None:
        """Wait until it is time to look again, which a source with a shorter lease brings forward."""
        began = self._loop.time()
        while True:
            self._shorter.clear()
            self._shortest = min((source.lease for source in self._sources), default=HORIZON)
            pause = began + min(INTERVAL, max(SHORTEST, self._shortest / 2000)) - self._loop.time()
            try:
                async with asyncio.timeout(pause):
                    await self._shorter.wait()
            except TimeoutError:
                return

    async def look(self) -> None:
        """Look once at all sources."""
        for sources in _chunks(self._sources):
            keys: list[str] = []
            args: list[str | int] = [HORIZON]
            for source in sources:
                keys += (source.stream, source.delayed)
                args += (source.group, source.lease)
            answers = await self._line.run(LOOK, keys, args)
            for source, wait in zip(sources, answers, strict=True):
                if wait >= 0:
                    self.expect(source, wait / 1000)
                elif wait == -2 and source in self._sources:
                    source.agenda.mark(source.agenda.restore, [source])

    async def _reap(self) -> None:
        for sources in _chunks(self._sources):
            for source in sources:
                self._line.run(REAP, (source.stream,), (source.group, _GONE, ""))
            await self._line.send("PING")

    def _cancel(self, name: tuple[str, str]) -> None:
        if timer := self._timers.pop(name, None):
            timer[1].cancel()

    def _mark(self, name: tuple[str, str]) -> None:
        self._cancel(name)
        for source in self._peers.get(name, ()):
            source.agenda.mark(source.agenda.claim, [source])


def _chunks(sources: Iterable[Source]) -> Iterable[Sequence[Source]]:
    left = iter(tuple(sources))
    while chunk := tuple(islice(left, _CHUNK)):
        yield chunk
