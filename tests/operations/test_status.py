"""`read_status` and `check_host`: subscriptions and workers of a backend."""

from __future__ import annotations

import msgspec

from abe_router.backend import Features
from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import new_message
from abe_router.operations.status import HostReadiness, check_host, read_status
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import WORKERS, RouteState, WorkerReport

TABLE = RouteTable(backend="redis://me:secret@localhost/0", revision="abc")


def worker(host: str, *, connected: bool = True) -> WorkerReport:
    return WorkerReport(host, 1, 0.0, "abc", routes={"a/first": RouteState(connected=connected)})


async def put(backend: MemoryBackend, name: str, report: WorkerReport) -> None:
    await backend.put(WORKERS, name, msgspec.json.encode(report), ttl=60)


async def test_status_has_every_subscription_and_every_worker() -> None:
    async with MemoryBackend() as backend:
        await backend.subscribe("a", "first")
        await backend.append([new_message("a", b"1")])
        await put(backend, "w1", worker("here"))
        await backend.put(WORKERS, "w2", b"of another version", ttl=60)
        status = await read_status(TABLE, backend)
    assert (status.backend, status.revision) == ("redis://***@localhost/0", "abc")
    assert [(state.route, state.ready) for state in status.routes] == [("a/first", 1)]
    assert status.workers == {"w1": worker("here"), "w2": None}


async def test_backend_without_key_value_store_has_no_workers() -> None:
    class Plain(MemoryBackend):
        features = Features(key_value=False)

    async with Plain() as backend:
        assert (await read_status(TABLE, backend)).workers == {}
        assert not (await check_host(backend, "here")).ready


async def test_host_is_ready_when_it_has_workers_and_all_are_connected() -> None:
    async with MemoryBackend() as backend:
        await put(backend, "w1", worker("elsewhere", connected=False))
        assert await check_host(backend, "here") == HostReadiness("here", 0, 0)
        await put(backend, "w2", worker("here"))
        found = await check_host(backend, "here")
        assert (found.workers, found.ready) == (1, True)
        await put(backend, "w3", worker("here", connected=False))
        found = await check_host(backend, "here")
        assert (found.workers, found.disconnected, found.ready) == (2, 1, False)
