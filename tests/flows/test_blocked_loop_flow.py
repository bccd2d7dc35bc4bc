"""A handler that blocks the event loop keeps its leases, and one log line names it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from abe_router.backend import Backend, Delivery
from abe_router.backends import make_backend
from abe_router.consumer import stall_monitor
from abe_router.observe.events import DeadLettered, Event, Events, Handled, LeaseLost
from abe_router.routing.policies import RetryPolicy
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler
from abe_router.testing import RedisServer
from tests.limits import HANG

from .conftest import EventLog, PatchedBackend, Running, make_route

#: The lease of these tests, how long a handler blocks the event loop, and after how long that is reported, in
#: seconds.
LEASE, BLOCKS, REPORT_AFTER = 0.8, 1.6, 0.5


@pytest.fixture(autouse=True)
def _report_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall_monitor, "REPORT_AFTER", REPORT_AFTER)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def backend_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/log.db"
    return str(request.getfixturevalue("redis_url"))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


class OtherWorker:
    """Another worker, in a thread with an event loop of its own; it settles nothing that it gets."""

    def __init__(self, url: str, lease: float) -> None:
        self.url, self._lease = url, lease
        self.taken: list[Delivery] = []

    def fetch(self, seconds: float, *, exclusive: bool = False) -> Sequence[Delivery]:
        """Return what comes within some seconds; block until something comes or they are over."""

        async def run() -> None:
            async with make_backend(self.url) as backend:
                subscribe = backend.subscribe_exclusive if exclusive else backend.subscribe
                handle = await subscribe("orders.created", "billing", lease=self._lease)
                self.taken += await handle.fetch(100, seconds)

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        thread.join()
        return self.taken


class Worker:
    """A router on a backend, with one route."""

    def __init__(self, url: str, function: Callable[..., Any], **options: Any) -> None:
        self.backend: Backend = make_backend(url)
        self.log = EventLog()
        self.reconciler = Reconciler(self.backend, Events([((Event,), self.log)]))
        self._route = make_route(function, **{"lease": LEASE, **options})

    async def __aenter__(self) -> Self:
        await self.reconciler.apply(RouteTable(routes=(self._route,), revision="1"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reconciler.stop(drain=0)
        await self.backend.close()


async def lines(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    """Return the log lines with a text, once there is one: a thread of its own logs it."""
    async with asyncio.timeout(HANG):
        while not (found := [text for text in caplog.messages if part in text]):
            await asyncio.sleep(0.01)
    return found


@pytest.mark.alone
@pytest.mark.parametrize("order_by", [None, "/customer"], ids=["any order", "ordered"])
async def test_blocked_loop_keeps_its_leases_and_is_logged_once(
    backend_url: str, order_by: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    other, begun, last = OtherWorker(backend_url, LEASE), list[int](), asyncio.Event()

    async def charge(order: dict[str, int]) -> None:
        begun.append(order["n"])
        if len(begun) < 2:  # runs while the other one blocks
            await last.wait()
        elif not last.is_set():
            last.set()
            if backend_url == "memory://":
                time.sleep(BLOCKS)  # noqa: ASYNC251  blocking is the purpose
            else:
                other.fetch(BLOCKS, exclusive=order_by is not None)

    async with Worker(backend_url, charge, order_by=order_by, concurrency=2) as worker:
        for n in range(2):
            await worker.backend.publish("orders.created", {"n": n, "customer": n})
        await worker.log.wait_for(Handled, 2)
        assert sorted(begun) == [0, 1]
        assert not worker.log.of(LeaseLost)
        assert worker.reconciler.stalls.stalls == 1
        assert worker.reconciler.stalls.stalled_seconds >= REPORT_AFTER
    assert not other.taken
    (line,) = await lines(caplog, "blocked the event loop")
    assert line.startswith("route orders.created/billing: handler ")
    assert f" at {Path(__file__).relative_to(Path.cwd())}:" in line
    assert line.endswith("; use a plain (not async) handler or await")


@pytest.mark.alone
@pytest.mark.parametrize("backend_url", ["sqlite"], indirect=True)
async def test_leases_are_not_renewed_beyond_the_timeout_of_a_blocked_handler(backend_url: str) -> None:
    other = OtherWorker(backend_url, 60.0)

    async def charge(order: dict[str, int]) -> None:
        other.fetch(10.0)

    async with Worker(backend_url, charge, timeout=0.1, retry=RetryPolicy(attempts=1)) as worker:
        await worker.backend.publish("orders.created", {"n": 0})
        await worker.log.wait_for(LeaseLost)
    assert [delivery.deliveries for delivery in other.taken] == [2]


async def test_healthy_loop_renews_nothing_from_a_thread() -> None:
    renewed, handled = list[int](), list[int]()

    def patch(subscription: Any) -> None:
        subscription.renew = lambda deliveries: renewed.append(len(deliveries))

    async def charge(order: int) -> None:
        await asyncio.sleep(0.02)
        handled.append(order)

    running = Running(PatchedBackend(patch))
    await running.route(make_route(charge, lease=30.0))
    await running.publish("orders.created", *range(10))
    await running.log.wait_for(Handled, 10)
    assert not renewed
    assert running.router.stalls.stalls == 0
    thread = running.router.stalls.thread
    assert thread is not None
    assert thread.is_alive()
    await running.router.stop(drain=0)
    await asyncio.to_thread(thread.join, 10.0)
    assert not thread.is_alive()
    await running.backend.close()


async def test_forked_child_renews_nothing(running: Running) -> None:
    statuses = list[int]()

    async def charge(order: int) -> None:
        thread = running.router.stalls.thread
        assert thread is not None
        assert thread.is_alive()
        child = os.fork()
        if child == 0:
            os._exit(3 if thread.is_alive() else 0)
        statuses.append(os.waitpid(child, 0)[1])  # noqa: ASYNC222  the child ends at once

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)
    await running.log.wait_for(Handled)
    assert statuses == [0]


@pytest.mark.alone
async def test_renewal_that_fails_is_logged_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried, again = list[float](), threading.Event()

    def patch(subscription: Any) -> None:
        def renew(deliveries: Sequence[Delivery]) -> None:
            tried.append(time.monotonic())
            if len(tried) > 2:
                again.set()
            raise OSError("no route to host")

        subscription.renew = renew

    async def charge(order: int) -> None:
        assert again.wait(HANG)

    running = Running(PatchedBackend(patch))
    await running.route(make_route(charge, lease=0.2))
    await running.publish("orders.created", 1)
    await running.log.wait_for(Handled)
    await running.router.stop(drain=0)
    assert len(await lines(caplog, "leases not renewed")) == 1
    await running.backend.close()


@pytest.mark.alone
@pytest.mark.parametrize("backend_url", ["sqlite"], indirect=True)
async def test_plain_handler_that_was_in_time_keeps_its_lease_on_a_blocked_loop(backend_url: str) -> None:
    other, begun, blocked = OtherWorker(backend_url, LEASE), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def charge(order: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        assert blocked.wait(HANG)

    async def block(order: int) -> None:
        await begun.wait()
        blocked.set()
        other.fetch(BLOCKS)

    short = {"timeout": LEASE * 0.8, "retry": RetryPolicy(attempts=1)}
    blocking = make_route(block, group="audit", lease=LEASE)
    async with Worker(backend_url, charge, **short) as worker:
        await worker.reconciler.apply(RouteTable(routes=(*worker.reconciler.table.routes, blocking)))
        await worker.backend.publish("orders.created", 1)
        await worker.log.wait_for(Handled, 2)
        assert not other.taken
        assert not worker.log.of(DeadLettered)
        assert not worker.log.of(LeaseLost)


@pytest.mark.alone
async def test_task_of_a_handler_that_blocks_the_loop_is_logged_with_its_line(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def block() -> None:
        time.sleep(REPORT_AFTER + 1.0)  # noqa: ASYNC251  blocking is the purpose

    async def charge(order: int) -> None:
        await asyncio.create_task(block())

    caplog.set_level(logging.WARNING)
    await running.route(make_route(charge))
    await running.publish("orders.created", 1)
    await running.log.wait_for(Handled)
    (line,) = await lines(caplog, "the event loop has been blocked")
    assert f" at {Path(__file__).relative_to(Path.cwd())}:" in line
