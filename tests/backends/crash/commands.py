"""Cuts off a Redis client, or kills the server, before and after each command.

Before a command: the server never gets it. After it: the server has carried it out, and the reply is lost.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from itertools import count
from typing import Any, Self
from urllib.parse import urlsplit

import hiredis

from abe_router.backends import make_backend
from abe_router.backends.redis import appender
from abe_router.backends.redis.partitioned import PartitionedRedisBackend, mover
from abe_router.backends.redis.partitioned.outbox import waiting
from abe_router.errors import BackendUnavailable
from abe_router.testing import RedisServer
from tests.limits import HANG

from . import check
from .check import Point
from .scenario import SHORT, Scenario, begin_nothing

#: How long until every lease and delay is over, in seconds.
_LATER = SHORT + 0.05
#: They change nothing, and their time depends on timers and not on the scenario.
_UNCOUNTED = (b"XREAD", b"CLIENT", b"SENTINEL")
#: Smaller than usual, so that a scenario of a hundred messages has several batches.
appender.BATCH = 40
#: Shorter than usual, so that what a cut mover left is soon moved.
mover.LEASE = 0.1
_INCOMPLETE = object()


class Ending(Enum):
    """What follows a cut: a look at what is left, or the scenario again by a new or by the same client."""

    LOOK = auto()
    AGAIN = auto()
    SURVIVE = auto()


class Cutter:
    """A proxy that carries one command at a time, and cuts at one of them.

    Before or `after` command number `at` it restarts the server, if `restart` is given, resets all
    connections and accepts no new ones. With a `sentinel`, which has that port, it stands before the Sentinel
    too, and has it name the proxy as the primary.
    """

    def __init__(
        self,
        url: str,
        at: int,
        *,
        after: bool,
        restart: Callable[[], None] | None = None,
        sentinel: int | None = None,
    ) -> None:
        parts = urlsplit(url)
        assert parts.port
        self._port, self._sentinel, self._query = parts.port, sentinel, parts.query
        self._at, self._after, self._restart = at, after, restart
        self._count, self._armed = 0, False
        self._links: set[asyncio.Task[Any]] = set()
        self._cutting = asyncio.Lock()
        #: Whether the command has come.
        self.has_cut = False

    async def __aenter__(self) -> Self:
        self._listening = [await asyncio.start_server(partial(self._carry, self._port), "127.0.0.1", 0)]
        port = self._listening[0].sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}/0?{self._query}"
        if self._sentinel:
            names = b"\r\n%d\r\n" % self._port, b"\r\n%d\r\n" % port
            name = partial(self._carry, self._sentinel, names=names)
            self._listening.append(await asyncio.start_server(name, "127.0.0.1", 0))
            port = self._listening[1].sockets[0].getsockname()[1]
            self.url = f"redis+sentinel://127.0.0.1:{port}/main?{self._query}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for listening in self._listening:
            listening.close()
        async with self._cutting:
            self._hang_up()
        await asyncio.gather(*self._links, return_exceptions=True)

    def begin(self) -> None:
        """Count from now on."""
        self._armed = True

    def mend(self) -> None:
        """Accept connections again, and cut no more."""
        self._armed = self.has_cut = False

    async def _carry(
        self,
        port: int,
        client: asyncio.StreamReader,
        answer: asyncio.StreamWriter,
        *,
        names: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        link, ask = asyncio.current_task(), None
        assert link
        self._links.add(link)
        with suppress(OSError, asyncio.CancelledError):
            if not self.has_cut:
                server, ask = await asyncio.open_connection("127.0.0.1", port)
                await self._pass_on(client, ask, server, answer, names)
        for writer in (answer, ask):
            if writer:
                writer.transport.abort()
        self._links.discard(link)

    async def _pass_on(
        self,
        client: asyncio.StreamReader,
        ask: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        answer: asyncio.StreamWriter,
        names: tuple[bytes, bytes],
    ) -> None:
        commands, replies = hiredis.Reader(), hiredis.Reader(notEnoughData=_INCOMPLETE)
        while data := await client.read(65_536):
            commands.feed(data)
            while command := commands.gets():
                is_it = self._is_it(command)
                if is_it and not self._after:
                    return await self._cut()
                ask.write(hiredis.pack_command(tuple(command)))
                reply = b""
                while replies.gets() is _INCOMPLETE:
                    if not (piece := await server.read(65_536)):
                        return None
                    replies.feed(piece)
                    reply += piece
                if is_it:
                    return await self._cut()
                answer.write(reply.replace(*names) if names[0] else reply)
        return None

    def _is_it(self, command: list[bytes]) -> bool:
        if not self._armed or command[0].upper() in _UNCOUNTED:
            return False
        self._count += 1
        return self._count == self._at

    async def _cut(self) -> None:
        async with self._cutting:
            self.has_cut = True
            if self._restart:
                await asyncio.to_thread(self._restart)
            self._hang_up()

    def _hang_up(self) -> None:
        for link in self._links - {asyncio.current_task()}:
            link.cancel()


async def points(
    url: str, scenario: Scenario, room: asyncio.Semaphore, every: int, sentinel: int | None = None
) -> list[Point]:
    """Cut the client at one point in `every`, with each ending; `room` limits how many run at a time.

    The client asks the `sentinel` that has this port, if that is given.
    """
    found: list[Point] = []

    async def cut_all(ending: Ending, *, after: bool) -> None:
        for at in count(1, every):
            async with room:
                wrong = await _cut(url, scenario, at, ending, after=after, sentinel=sentinel)
            if wrong is None:
                return
            found.append((f"{'after' if after else 'before'} command {at}, {ending.name.lower()}", wrong))

    await asyncio.gather(*(cut_all(ending, after=after) for ending in Ending for after in (False, True)))
    return found


async def points_of_server(
    server: RedisServer, scenario: Scenario, room: asyncio.Semaphore, every: int
) -> list[Point]:
    """Kill the server at one point in `every`, start it again, and look at what is left."""
    found: list[Point] = []

    def restart() -> None:
        server.kill()
        server.start()

    for after in (False, True):
        for at in count(1, every):
            async with room:
                wrong = await _cut(server.url, scenario, at, Ending.LOOK, after=after, restart=restart)
            if wrong is None:
                break
            found.append((f"server killed {'after' if after else 'before'} command {at}", wrong))
    return found


async def _cut(
    url: str,
    scenario: Scenario,
    at: int,
    ending: Ending,
    *,
    after: bool,
    restart: Callable[[], None] | None = None,
    sentinel: int | None = None,
) -> list[str] | None:
    """Run a scenario that is cut; return what is wrong in the end, None if it ended before the cut."""
    prefix = f"c{secrets.token_hex(5)}."
    async with make_backend(url, prefix=prefix) as backend:
        await scenario.prepare(backend)
    async with (
        Cutter(url, at, after=after, restart=restart, sentinel=sentinel) as cutter,
        make_backend(cutter.url, prefix=prefix) as backend,
    ):
        with suppress(BackendUnavailable):
            await scenario.run(backend, cutter.begin)
        if not cutter.has_cut:
            return None
        await asyncio.sleep(_LATER)
        if ending is Ending.SURVIVE:
            cutter.mend()
            if isinstance(backend, PartitionedRedisBackend):
                await _reached(backend)
            await scenario.run(backend, begin_nothing)
    async with make_backend(url, prefix=prefix) as backend:
        if ending is Ending.AGAIN:
            await scenario.run(backend, begin_nothing)
        await asyncio.sleep(_LATER)
        if isinstance(backend, PartitionedRedisBackend):
            await _moved(backend)
        if ending is Ending.LOOK:
            return await check.after_cut(backend, scenario, in_one_step=False)
        return await check.after_rerun(backend, scenario)


async def _reached(backend: PartitionedRedisBackend) -> None:
    """Connect to all partitions: movers may be about to, over connections that were refused before."""
    for partition in backend._partitions:
        for _ in range(20):
            with suppress(BackendUnavailable):
                await partition.open()
                break


async def _moved(backend: PartitionedRedisBackend) -> None:
    """Wait until the outputs of handlers are where they go."""
    await backend.open()
    backend._movers.start()
    async with asyncio.timeout(HANG):
        while any([await waiting(await each.opened()) for each in backend._partitions]):
            await asyncio.sleep(0.01)
