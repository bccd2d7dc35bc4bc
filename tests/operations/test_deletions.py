"""A worker that starts while its subscription is deleted: whichever comes second waits for the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from abe_router.application import Application
from abe_router.backend import Backend
from abe_router.operations.audit import Author, acts
from abe_router.operations.dead_letters import purge
from abe_router.operations.errors import OperationRefused, RouteServed
from abe_router.operations.health import check_health
from abe_router.operations.subscriptions import deleting, drop
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.routing.table import RouteTable
from abe_router.runtime.heartbeat import DELETIONS, WORKERS, served_routes

NAME = "orders.created/fraud"
ROUTE = ("orders.created", "fraud")
ADA = Author("ada@host", "command line")


def application(backend: Backend, got: asyncio.Queue[Any], **options: Any) -> Application:
    """Return a worker of another file whose handler puts each payload into `got`."""

    async def fraud(order: Any) -> None:
        got.put_nowait(order)

    route = Route(*ROUTE, handler_from(fraud), **options)
    return Application(RouteTable((route,), revision="other"), backend)


async def seen(backend: Backend) -> None:
    """Wait until the backend has the report of a worker of the route."""
    while NAME not in (await served_routes(backend)).routes:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("order_by", [None, "/id"])
async def test_a_worker_that_starts_during_a_deletion_subscribes_after_it(
    shared: Callable[[], Backend], order_by: str | None
) -> None:
    backend, other = shared(), shared()
    got: asyncio.Queue[Any] = asyncio.Queue()
    await (await backend.subscribe(*ROUTE)).close()
    await backend.publish(ROUTE[0], {"id": 1})
    worker = application(other, got, order_by=order_by)
    looks = asyncio.Semaphore(0)
    look = other.get

    async def get(bucket: str, name: str) -> Any:
        found = await look(bucket, name)
        if bucket == DELETIONS:
            looks.release()
        return found

    other.get = get  # type: ignore[method-assign]
    async with asyncio.timeout(20):
        async with deleting(backend, ROUTE, force=False, why=""):
            starting = asyncio.create_task(worker.start())
            await seen(backend)
            await looks.acquire()  # it has seen the deletion, and looks again
            await looks.acquire()
            await backend.drop(*ROUTE)
            assert await backend.status() == []
            await backend.publish(ROUTE[0], {"id": 2})
            assert not starting.done()
        await starting
        assert (await got.get())["id"] in (1, 2)  # what is retained begins with 1 on some backends
        await backend.publish(ROUTE[0], {"id": 3})
        while (await got.get())["id"] != 3:
            pass
        await worker.stop()


async def test_a_worker_that_has_reported_and_not_yet_subscribed_keeps_its_backlog(
    shared: Callable[[], Backend],
) -> None:
    backend, other = shared(), shared()
    got: asyncio.Queue[Any] = asyncio.Queue()
    await (await backend.subscribe(*ROUTE)).close()
    await backend.publish(ROUTE[0], {"id": 1})
    go, subscribe = asyncio.Event(), other.subscribe

    async def held(*args: Any, **options: Any) -> Any:
        await go.wait()
        return await subscribe(*args, **options)

    other.subscribe = held  # type: ignore[method-assign]
    worker = application(other, got)
    async with asyncio.timeout(20):
        starting = asyncio.create_task(worker.start())
        await seen(backend)
        for refused in (
            drop(RouteTable(), backend, ROUTE, author=ADA),
            purge(backend, ROUTE, ["1"], author=ADA),
        ):
            with pytest.raises(RouteServed, match="is served by 1 worker: no file on"):
                await refused
        go.set()
        await starting
        assert (await got.get())["id"] == 1
        await worker.stop()
    assert await backend.entries(DELETIONS) == {}


async def test_a_report_that_cannot_be_read_prevents_a_deletion(shared: Callable[[], Backend]) -> None:
    backend = shared()
    await (await backend.subscribe(*ROUTE)).close()
    await backend.publish(ROUTE[0], {"id": 1})
    await backend.put(WORKERS, "host-7-x", b'{"host": 1}', ttl=60)
    with pytest.raises(RouteServed, match="may be served: the report of host-7-x is of another version"):
        await drop(RouteTable(), backend, ROUTE, author=ADA)
    table = RouteTable((Route("a", "b", handler_from(print)),), revision="r")
    codes = {result.code: result for result in (await check_health(table, backend)).results}
    assert "host-7-x" in codes["D116"].message
    assert "D110" not in codes
    await purge(backend, ROUTE, ["1"], author=ADA, why="known", force=True)
    await drop(RouteTable(), backend, ROUTE, author=ADA, why="known", force=True)
    found = [(act.action, act.result) for act in await acts(backend)]
    assert found == [
        ("drop", "forced: dropped 1 message and 0 dead letters"),
        ("dead purge", "forced: purged 0 of 1"),
    ]


async def test_a_route_is_deleted_by_one_operator_at_a_time(shared: Callable[[], Backend]) -> None:
    backend, other = shared(), shared()
    async with deleting(backend, ROUTE, force=False, why=""):
        with pytest.raises(OperationRefused, match="is being deleted already"):
            async with deleting(other, ROUTE, force=True, why="now"):
                pass
    async with deleting(other, ROUTE, force=False, why=""):
        pass
