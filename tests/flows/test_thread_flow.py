"""Plain handlers: their threads, and when their time begins."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from abe_router.consumer import Consumer
from abe_router.observe.events import DeadLettered, Event, Events, Handled, Retried
from abe_router.routing.policies import Batch, RetryPolicy
from tests.limits import HANG

from .conftest import EventLog, Running, make_route, within

ONCE = RetryPolicy(attempts=1)


@pytest.mark.parametrize("batch", [None, Batch(1, 0.0)])
async def test_hanging_plain_handlers_delay_no_other_route(running: Running, batch, caplog):
    go = threading.Event()

    def hang(payload: Any) -> None:
        go.wait(HANG)

    def charge(payload: Any) -> None:
        time.sleep(0.01)

    await running.route(
        make_route(hang, "bad", timeout=0.2, retry=ONCE, batch=batch),
        make_route(charge, "good", timeout=0.2, retry=ONCE, batch=batch),
    )
    await running.publish("bad", *range(40))
    await asyncio.sleep(0.1)
    await running.publish("good", *range(20))
    try:
        await running.log.wait_for(Handled, 20)
        assert {event.route for event in running.log.of(Handled)} == {"good/billing"}
        await running.log.wait_for(DeadLettered, 40)
        assert {(event.route, event.kind) for event in running.log.of(DeadLettered)} == {
            ("bad/billing", "timeout")
        }
    finally:
        go.set()
    assert caplog.text.count("its thread cannot be stopped and is replaced") == 1
    assert "bad/billing: a call of `" in caplog.text


async def test_each_of_two_hundred_concurrent_plain_calls_gets_its_whole_time(running: Running):
    def charge(payload: int) -> None:
        time.sleep(0.3)

    await running.route(make_route(charge, concurrency=100, timeout=0.8, retry=ONCE))
    await running.publish("orders.created", *range(200))
    await running.log.wait_for(Handled, 200)
    assert not running.log.of(DeadLettered)


class _LateExecutor(Executor):
    """Makes each call in a thread of its own, after a delay."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def call() -> None:
            time.sleep(0.4)
            if future.set_running_or_notify_cancel():
                future.set_result(fn(*args, **kwargs))

        threading.Thread(target=call, daemon=True).start()
        return future


async def test_timeout_of_a_plain_handler_begins_when_its_thread_does(running: Running):
    log, took = EventLog(), []

    def charge(payload: str) -> None:
        began = time.monotonic()
        time.sleep(0.05 if payload == "short" else 0.6)
        took.append(time.monotonic() - began)

    route = make_route(charge, timeout=0.2, retry=ONCE)
    consumer = Consumer(
        route, running.backend, Events([((Event,), log)]), revision="", threads=_LateExecutor()
    )
    task = asyncio.create_task(consumer.run())
    await running.publish("orders.created", "short", "long")
    (dead_lettered,) = await log.wait_for(DeadLettered)
    assert dead_lettered.kind == "timeout"
    assert len(log.of(Handled)) == 1
    consumer.stop(0.0)
    await task


@pytest.mark.parametrize("how", ["async", "plain", "awaited"])
@pytest.mark.parametrize("batch", [None, Batch(1, 0.0)])
async def test_generator_exit_in_a_handler_fails_its_message_alone(running: Running, how, batch):
    def fail(payload: Any) -> None:
        raise GeneratorExit

    async def fail_async(payload: Any) -> None:
        fail(payload)

    async def await_failure(payload: Any) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.01, future.set_exception, GeneratorExit())
        await future

    handler = {"async": fail_async, "plain": fail, "awaited": await_failure}[how]
    route = make_route(handler, retry=RetryPolicy(attempts=2, initial=0.0), batch=batch)
    await running.route(route)
    await running.publish("orders.created", 1)
    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert (dead_lettered.kind, dead_lettered.attempts) == ("failed", 2)
    assert len(running.log.of(Retried)) == 1
    async with within():
        while any(s.ready + s.in_flight for s in await running.backend.status()):
            await asyncio.sleep(0.01)
