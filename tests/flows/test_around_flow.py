"""`around`: a context manager in which the handler is called."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import pytest

from abe_router.consumer import Consumer
from abe_router.errors import Reject
from abe_router.messages.message import Message
from abe_router.observe.events import DeadLettered, Event, Events, Handled, Retried
from abe_router.routing.policies import Batch, RetryPolicy

from .conftest import EventLog, make_route

span: ContextVar[str] = ContextVar("span", default="none")


@pytest.fixture
async def consume(running):
    """Run a consumer of a route with `around`; return the log of its events."""
    tasks: list[tuple[Consumer, asyncio.Task[None]]] = []
    with ThreadPoolExecutor(2) as threads:

        async def start(route, around) -> EventLog:
            log = EventLog()
            events = Events([((Event,), log)])
            consumer = Consumer(route, running.backend, events, revision="", threads=threads, around=around)
            tasks.append((consumer, asyncio.create_task(consumer.run())))
            await consumer.started.wait()
            return log

        yield start
        for consumer, task in tasks:
            consumer.stop(1.0)
            await task


@asynccontextmanager
async def spanned(deliveries):
    token = span.set("+".join(delivery.message.id for delivery in deliveries))
    try:
        yield
    finally:
        span.reset(token)


def returns_coroutine(got):
    def charge(payload):
        async def later():
            got.append(span.get())

        return later()

    return charge


def is_async(got):
    async def charge(payload):
        await asyncio.sleep(0)
        got.append(span.get())

    return charge


def is_plain(got):
    return lambda payload: got.append(span.get())


@pytest.mark.parametrize("handler", [is_async, is_plain, returns_coroutine])
async def test_context_variables_of_around_reach_the_handler(running, consume, handler):
    got = []
    log = await consume(make_route(handler(got), concurrency=1), spanned)
    await running.backend.publish("orders.created", 1, id="m1")
    await running.backend.publish("orders.created", 2, id="m2")
    await log.wait_for(Handled, 2)
    assert got == ["m1", "m2"]
    assert span.get() == "none"


async def test_context_variables_of_the_program_reach_a_plain_handler(running):
    got = []
    token = span.set("outer")
    try:
        await running.route(make_route(is_plain(got)))
    finally:
        span.reset(token)
    await running.publish("orders.created", 1)
    await running.log.wait_for(Handled)
    assert got == ["outer"]


async def test_around_is_in_the_task_of_the_handler(running, consume):
    seen = []

    @asynccontextmanager
    async def around(deliveries):
        seen.append(asyncio.current_task())
        yield
        seen.append(asyncio.current_task())

    async def charge(payload):
        seen.append(asyncio.current_task())

    log = await consume(make_route(charge), around)
    await running.publish("orders.created", 1)
    await log.wait_for(Handled)
    assert len(seen) == 3
    assert len(set(seen)) == 1


async def test_batch_is_surrounded_once_with_the_deliveries_its_handler_gets(running, consume):
    got = []

    async def charge(payloads):
        got.append((payloads, span.get()))

    log = await consume(make_route(charge, batch=Batch(3)), spanned)
    await running.backend.append([Message("x", "orders.created", b"{nope")])
    await running.backend.publish("orders.created", 1, id="m1")
    await running.backend.publish("orders.created", 2, id="m2")
    await log.wait_for(Handled, 2)
    assert got == [([1, 2], "m1+m2")]


async def test_message_that_is_not_for_the_handler_is_not_surrounded(running, consume):
    surrounded = []

    @asynccontextmanager
    async def around(deliveries):
        surrounded.append(deliveries)
        yield

    log = await consume(make_route(print), around)
    await running.backend.append([Message("x", "orders.created", b"{nope")])
    await log.wait_for(DeadLettered)
    assert surrounded == []


async def test_around_sees_the_error_of_the_handler(running, consume):
    seen = []

    @asynccontextmanager
    async def around(deliveries):
        try:
            yield
        except ValueError as error:
            seen.append(error)
            raise

    async def charge(payload):
        raise ValueError("no funds")

    log = await consume(make_route(charge, retry=RetryPolicy(attempts=1)), around)
    await running.publish("orders.created", 1)
    (dead_lettered,) = await log.wait_for(DeadLettered)
    assert [str(error) for error in seen] == ["no funds"]
    assert dead_lettered.error == "ValueError: no funds"


@pytest.mark.parametrize("when", ["make", "enter", "exit"])
async def test_error_of_around_is_a_failure_of_the_handler(running, consume, when):
    called = []

    def around(deliveries):
        if when == "make":
            raise RuntimeError(when)

        @asynccontextmanager
        async def failing():
            if when == "enter":
                raise RuntimeError(when)
            yield
            raise RuntimeError(when)

        return failing()

    async def charge(payload):
        called.append(payload)

    log = await consume(make_route(charge), around)
    await running.publish("orders.created", 1)
    (dead_lettered,) = await log.wait_for(DeadLettered)
    assert len(log.of(Retried)) == 2
    assert dead_lettered.error == f"RuntimeError: {when}"
    assert called == ([1, 1, 1] if when == "exit" else [])


async def test_around_may_reject_a_message(running, consume):
    @asynccontextmanager
    async def around(deliveries):
        raise Reject("no tenant")
        yield

    log = await consume(make_route(print), around)
    await running.publish("orders.created", 1)
    (dead_lettered,) = await log.wait_for(DeadLettered)
    assert (dead_lettered.kind, dead_lettered.attempts) == ("rejected", 1)


async def test_error_that_around_suppresses_is_a_success(running, consume):
    @asynccontextmanager
    async def around(deliveries):
        with suppress(ValueError):
            yield

    async def charge(payload):
        raise ValueError("known")

    log = await consume(make_route(charge), around)
    await running.publish("orders.created", 1)
    await log.wait_for(Handled)
    assert log.of(Retried) == []


async def test_timeout_covers_around(running, consume):
    @asynccontextmanager
    async def around(deliveries):
        await asyncio.Event().wait()
        yield

    log = await consume(make_route(print, timeout=0.05, retry=RetryPolicy(attempts=1)), around)
    await running.publish("orders.created", 1)
    (dead_lettered,) = await log.wait_for(DeadLettered)
    assert dead_lettered.kind == "timeout"
