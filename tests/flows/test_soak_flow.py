"""Memory and disk do not grow with work, after a warm-up.

A short soak runs with the other tests. With `ABE_ROUTER_SOAK=3600` it runs for an hour on each backend.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.errors import Reject
from abe_router.messages.message import Message, new_message
from abe_router.observe.events import DeadLettered, Event, Events, Handled
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.runtime.retention import RetentionLoop
from abe_router.testing import RedisServer
from tests.limits import HANG

from .conftest import make_route

#: How long to run, in seconds; with 0 it runs as many rounds as show a growth.
SOAK = float(os.environ.get("ABE_ROUTER_SOAK", "0"))
#: Rounds to warm up, and rounds after that, at least.
WARM, ROUNDS = 6, 12
#: Messages of a round, for two routes; one route has many keys. Some fail once, some are rejected.
FINE, FAILING, REJECTED, KEYS = 600, 100, 100, 200

#: Allowed growth after the warm-up, in bytes: of the process, and of what the backend stores.
MOST_PROCESS, MOST_KEPT = 4_000_000, 2_000_000
#: How large a database may get while its messages are removed as they are settled, in bytes.
LARGEST = 64_000_000
#: Allowed cost of a key that was used once, in bytes: of the process, and of what the backend stores.
KEY_PROCESS, KEY_KEPT = 8_000, 2_500


class Soak:
    """A router that runs on a backend, and what it uses."""

    def __init__(self, backend: Backend, place: Path | Redis) -> None:
        self.backend, self._place = backend, place
        self._ended, self._changed = 0, asyncio.Event()
        retention = RetentionLoop(backend, first=0.0, every=0.05)
        events = Events([((Handled, DeadLettered), self._count)])
        self.router = Reconciler(backend, events, retention=retention)
        self._failed: set[str] = set()

    def _count(self, _: Event) -> None:
        self._ended += 1
        self._changed.set()

    def handle(self, payload: Any, message: Message) -> None:
        if payload == "reject":
            raise Reject("not this one")
        if payload == "fail" and message.attempt == 1:
            raise ValueError("not yet")

    async def start(self) -> None:
        options: dict[str, Any] = {"retry": RetryPolicy(attempts=3, initial=0.01), "concurrency": 100}

        async def handle(payload: Any, message: Message) -> None:
            self.handle(payload, message)

        routes = (make_route(handle, **options), make_route(handle, "visits.#", "counter", **options))
        await self.router.apply(RouteTable(routes=routes, revision="1"))

    async def work(self, messages: list[Message]) -> None:
        """Publish, and wait until every message has ended."""
        until = self._ended + len(messages)
        await self.backend.append(messages)
        async with asyncio.timeout(HANG):
            while self._ended < until:
                self._changed.clear()
                await self._changed.wait()

    async def round(self) -> None:
        bodies = [b'"%s"' % (b"x" * 1_000)] * FINE + [b'"fail"'] * FAILING + [b'"reject"'] * REJECTED
        visits = [new_message(f"visits.v{n}", b"1") for n in range(KEYS)]
        await self.work([*(new_message("orders.created", body) for body in bodies), *visits])
        while dead_letters := await self.backend.dead_letters("orders.created", "billing"):
            await self.backend.purge("orders.created", "billing", [each.id for each in dead_letters])

    async def used(self) -> tuple[int, int]:
        """Return how many bytes the idle process holds, and how many the backend stores."""
        while any(s.ready + s.in_flight + s.delayed + s.dead for s in await self.backend.status()):
            await asyncio.sleep(0.01)
        while await self.backend.trim({}):
            pass
        gc.collect()
        if isinstance(self._place, Redis):
            return resident(), (await self._place.info("memory"))["used_memory"]
        return resident(), database_size(self._place / "soak.db")


def resident() -> int:
    """Return how many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def database_size(file: Path) -> int:
    """Return how many bytes of a database are in use; free pages take the next messages."""
    with closing(sqlite3.connect(file)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    assert pages * size < LARGEST
    return int((pages - free) * size)


@asynccontextmanager
async def soaking(place: Path | RedisServer) -> AsyncIterator[Soak]:
    url = f"sqlite:///{place}/soak.db" if isinstance(place, Path) else place.url
    client = None if isinstance(place, Path) else Redis.from_url(url)
    async with make_backend(url, prefix="soak.") as backend:
        soak = Soak(backend, place if isinstance(place, Path) else client)
        try:
            await soak.start()
            yield soak
        finally:
            await soak.router.stop(drain=1.0)
            if client is not None:
                await client.aclose()


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    if request.param == "sqlite":
        yield tmp_path
        return
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server


@pytest.mark.timeout(SOAK + 120)
async def test_memory_and_disk_do_not_grow(place):
    async with soaking(place) as soak:
        for _ in range(WARM):
            await soak.round()
        process, kept = await soak.used()
        end, rounds = time.monotonic() + SOAK, 0
        while rounds < ROUNDS or time.monotonic() < end:
            await soak.round()
            rounds += 1
        process_after, kept_after = await soak.used()
        print(f"{rounds} rounds: process {process_after - process:+,} bytes, kept {kept_after - kept:+,}")
        assert process_after - process < MOST_PROCESS
        assert kept_after - kept < MOST_KEPT


async def test_key_used_once_uses_little_memory(place):
    count = 1_000
    async with soaking(place) as soak:
        await soak.round()
        await soak.work([new_message(f"visits.first{n}", b"1") for n in range(count)])
        process, kept = await soak.used()
        await soak.work([new_message(f"visits.second{n}", b"1") for n in range(count)])
        process_after, kept_after = await soak.used()
        each = (process_after - process) / count, (kept_after - kept) / count
        print("a key: process {:+,.0f} bytes, kept {:+,.0f}".format(*each))
        assert each[0] < KEY_PROCESS
        assert each[1] < KEY_KEPT
