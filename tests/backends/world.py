"""The providers that the model is compared with, each with a time that can be put forward.

The memory provider takes a clock. The SQLite provider reads `time.time`, which is replaced. Redis has its own
clock: there the times that it has stored are put back instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import pytest

from abe_router.backend import Backend, Subscription
from abe_router.backends import make_backend
from abe_router.backends.memory import MemoryBackend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.names import OUTBOX
from abe_router.backends.redis.node import Node
from abe_router.backends.sqlite import SQLiteBackend
from tests.limits import HANG


class World:
    """A new store and its time, and what providers may do in one way or another."""

    #: Whether a fetch brings all it may: with a stream for each key it may bring less, but never nothing.
    fetches_all = True
    #: Whether a replayed message is a copy at the end of the log: until others pass it over it is counted for
    #: them, and the original may be trimmed.
    replays_copies = False
    #: Whether a trim leaves nothing that may go.
    trims_all = True
    #: Whether deliveries to one handle differ by more than the number of deliveries of the message.
    tells_apart = True
    #: Whether what was handed back comes before what is behind it; otherwise what is new and old take turns.
    keeps_place = True
    #: Whether the provider notes times that were put forward: starts, and when a message was accepted.
    dates = True
    #: Whether entries of the key-value store expire when the time is put forward.
    expires = True
    #: Whether the outputs of one settle are appended in its order, whatever the keys of their causes.
    emits_in_order = True

    backend: Backend
    now: float

    def __init__(self) -> None:
        self.now = time.time()
        self._time = pytest.MonkeyPatch()

    def _patch_time(self) -> None:
        self._time.setattr(time, "time", lambda: self.now)

    async def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds

    async def look(self) -> None:
        """Do now what the provider does on a timer."""

    async def outputs_arrive(self) -> None:
        """Wait until emitted messages have reached their keys. Most providers emit them in one step."""

    async def abandon(self, handle: Subscription) -> None:
        """Let a worker die."""
        await handle.close()

    async def end(self) -> None:
        """Close the backend, and leave nothing behind."""
        self._time.undo()
        await self.backend.close()


class MemoryWorld(World):
    def __init__(self, make: Callable[..., Backend] = MemoryBackend) -> None:
        super().__init__()
        self.backend = make(clock=lambda: self.now)
        self._patch_time()


class SQLiteWorld(World):
    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self._folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.backend = SQLiteBackend(Path(self._folder.name, "log.db"))
        self._patch_time()

    async def abandon(self, handle: Subscription) -> None:
        """Forget it, as a process that is killed does."""

    async def end(self) -> None:
        await super().end()
        self._folder.cleanup()


class RedisWorld(World):
    fetches_all = False
    trims_all = False
    replays_copies = True
    tells_apart = False
    keeps_place = False
    dates = False
    expires = False

    def __init__(self, url: str) -> None:
        super().__init__()
        self.backend = RedisBackend.from_url(url, prefix=f"m{token_hex(5)}.")

    async def advance(self, seconds: float) -> None:
        await super().advance(seconds)
        node = await self.backend._opened()
        names = node.names.streams, node.names.others
        await node.connection.send("EVAL", _PUT_BACK, 0, *names, round(seconds * 1000))

    async def look(self) -> None:
        node = await self.backend._opened()
        await node.reaper.check()

    async def abandon(self, handle: Subscription) -> None:
        """Forget it, as a process that is killed does."""


class PartitionedWorld(RedisWorld):
    emits_in_order = False

    def __init__(self, url: str) -> None:
        World.__init__(self)
        self.backend = make_backend(url, prefix=f"m{token_hex(5)}.")

    async def advance(self, seconds: float) -> None:
        await World.advance(self, seconds)
        for node in await self._nodes():
            names = node.names.streams, node.names.others
            await node.connection.send("EVAL", _PUT_BACK, 0, *names, round(seconds * 1000))

    async def look(self) -> None:
        for node in await self._nodes():
            await node.reaper.check()

    async def outputs_arrive(self) -> None:
        # Between the steps of a mover, an output is under its key and still in the outbox, and counts twice.
        async with asyncio.timeout(HANG):
            for node in await self._nodes():
                while await node.connection.send("XLEN", node.names.stream(OUTBOX)):
                    await asyncio.sleep(0.001)

    async def _nodes(self) -> list[Node]:
        return [await each.opened() for each in self.backend._partitions]


#: Puts back what the server has noted: since when deliveries are held, until when retries wait and ids are
#: remembered. ARGV: what the names of streams and what other names begin with, and by how many milliseconds.
_PUT_BACK = """
for _, stream in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for _, held in ipairs(redis.call('XPENDING', stream, group[2], '-', '+', 10000)) do
      local id, consumer, idle, count = unpack(held)
      redis.call('XCLAIM', stream, group[2], consumer, 0, id,
        'IDLE', idle + ARGV[3], 'RETRYCOUNT', count, 'JUSTID')
    end
  end
end
for _, kind in ipairs({':delayed:*', ':ids'}) do
  for _, name in ipairs(redis.call('KEYS', ARGV[2] .. '*}' .. kind)) do
    for _, member in ipairs(redis.call('ZRANGE', name, 0, -1)) do
      redis.call('ZINCRBY', name, -ARGV[3], member)
    end
  end
end
"""
