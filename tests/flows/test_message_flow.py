"""A message is published, fetched, tried and settled. Read this file first."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from abe_router.errors import Reject, Retry
from abe_router.messages.message import Message
from abe_router.observe.events import ConsumerStopped, DeadLettered, Handled, LeaseLost, Retried, Skipped
from abe_router.routing.policies import RetryPolicy

from .conftest import make_route, within


async def test_handler_gets_the_payload(running):
    got = []

    async def charge(payload):
        got.append(payload)

    await running.route(make_route(charge))
    await running.publish("orders.created", {"id": "a1"})

    await running.log.wait_for(Handled)
    assert got == [{"id": "a1"}]


async def test_second_parameter_gets_the_message(running):
    got = []

    async def charge(payload, message):
        got.append(message)

    await running.route(make_route(charge))
    sent = await running.backend.publish("orders.created", {"id": 1}, headers={"trace": "t"})

    await running.log.wait_for(Handled)
    assert got == [Message(sent.id, "orders.created", b'{"id":1}', {"trace": "t"}, sent.published_at, 1)]


async def test_plain_function_runs_in_a_thread(running):
    threads = []

    def charge(payload):
        threads.append(threading.current_thread())

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert threads[0] is not threading.main_thread()


async def test_each_group_gets_every_message_of_its_pattern(running):
    got = []

    def note(name):
        async def handler(payload):
            got.append((name, payload))

        return handler

    await running.route(
        make_route(note("billing")),
        make_route(note("audit"), group="audit"),
        make_route(note("all"), key="orders.#", group="all"),
        make_route(note("other"), key="orders.*.late", group="all"),
    )
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled, 3)
    assert sorted(got) == [("all", 1), ("audit", 1), ("billing", 1)]


async def test_concurrency_limits_running_handlers(running):
    now = most = 0
    gate, full = asyncio.Semaphore(0), asyncio.Event()

    async def charge(payload):
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            full.set()
        await gate.acquire()
        now -= 1

    await running.route(make_route(charge, concurrency=3))
    await running.publish("orders.created", *range(10))
    await full.wait()
    for _ in range(10):
        gate.release()
    await running.log.wait_for(Handled, 10)
    assert most == 3


async def test_failure_is_retried_until_attempts_are_used_up(running):
    attempts = []

    async def charge(payload, message):
        attempts.append(message.attempt)
        raise ValueError("no funds")

    await running.route(make_route(charge))
    await running.publish("orders.created", {"total": 5})

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert attempts == [1, 2, 3]
    assert [event.attempt for event in running.log.of(Retried)] == [1, 2]
    assert (dead_lettered.kind, dead_lettered.attempts) == ("failed", 3)
    assert dead_lettered.error == "ValueError: no funds"
    (dead_letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert dead_letter.message.payload == {"total": 5}
    assert dead_letter.reason.error == "ValueError"
    assert "charge" in dead_letter.reason.traceback
    assert dead_letter.first_failed_at <= dead_letter.last_failed_at


async def test_reject_dead_letters_at_once(running):
    async def charge(payload):
        raise Reject("unknown currency")

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert (dead_lettered.kind, dead_lettered.attempts) == ("rejected", 1)


async def test_retry_after_sets_the_delay(running):
    async def charge(payload, message):
        if message.attempt == 1:
            raise Retry(after=0.02)

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert [event.delay for event in running.log.of(Retried)] == [0.02]


async def test_delayed_message_does_not_hold_up_later_ones(running):
    order = []

    async def charge(payload, message):
        order.append((payload, message.attempt))
        if payload == 1 and message.attempt == 1:
            raise ValueError

    await running.route(
        make_route(charge, concurrency=1, retry=RetryPolicy(attempts=2, initial=0.05, jitter=False))
    )
    await running.publish("orders.created", 1, 2, 3)

    await running.log.wait_for(Handled, 3)
    assert order == [(1, 1), (2, 1), (3, 1), (1, 2)]


async def test_timeout_ends_the_handler_and_is_a_failure(running):
    ended = asyncio.Event()

    async def charge(payload):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await running.route(make_route(charge, timeout=0.05, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert ended.is_set()
    assert dead_lettered.kind == "timeout"


async def test_slot_goes_on_after_a_timeout(running):
    async def charge(payload):
        if payload == 1:
            await asyncio.Event().wait()

    await running.route(make_route(charge, concurrency=1, timeout=0.05, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1, 2, 3)

    await running.log.wait_for(Handled, 2)


async def test_swallowed_timeout_counts_as_handled(running):
    async def charge(payload):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    await running.route(make_route(charge, concurrency=1, timeout=0.05))
    await running.publish("orders.created", 1, 2)

    await running.log.wait_for(Handled, 2)


async def test_sys_exit_in_a_handler_fails_its_message_alone(running):
    async def charge(payload):
        if payload == 1:
            raise SystemExit(3)

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1, 2)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    await running.log.wait_for(Handled)
    assert dead_lettered.error == "SystemExit: 3"


async def test_error_without_text_is_a_failure(running):
    class Textless(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    async def charge(payload):
        raise Textless

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error == "Textless: its text cannot be made: its __str__ raises"


@pytest.mark.parametrize(
    ("after", "error"),
    [
        (float("nan"), "ValueError: Retry(after=...) takes a finite number of seconds, not nan"),
        (float("inf"), "ValueError: Retry(after=...) takes a finite number of seconds, not inf"),
        ("5", "TypeError: Retry(after=...) takes seconds or a timedelta, not str"),
    ],
)
async def test_retry_after_an_invalid_delay_is_a_failure(running, after, error):
    async def charge(payload):
        raise Retry(after=after)

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.error == error


@pytest.mark.parametrize(("after", "delay"), [(timedelta(milliseconds=20), 0.02), (-5, 0.0)])
async def test_retry_after_takes_a_timedelta_and_a_negative_delay_is_none(running, after, delay):
    async def charge(payload, message):
        if message.attempt == 1:
            raise Retry(after=after)

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert running.log.of(Retried)[0].delay == delay


async def test_message_delivered_too_often_is_dead_lettered_unhandled(running):
    called = []

    async def charge(payload):
        called.append(payload)

    other = await running.backend.subscribe("orders.created", "billing", lease=0.01)
    await running.publish("orders.created", "poison")
    for _ in range(3):
        assert await other.fetch(1, 1.0)  # its lease runs out, as that of a killed worker does

    await running.route(make_route(charge, max_deliveries=3))

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.kind == "max_deliveries"
    assert called == []


async def test_malformed_body_is_dead_lettered(running):
    async def charge(payload):
        raise AssertionError("not called")

    await running.route(make_route(charge))
    await running.backend.append([Message("x", "orders.created", b"{nope")])

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.kind == "malformed"
    (dead_letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert dead_letter.message.body == b"{nope"


async def test_failed_message_is_dropped_with_an_event_without_dead_letters(running):
    async def charge(payload):
        raise Reject("no")

    await running.route(make_route(charge, dead_letter=False))
    await running.publish("orders.created", 1)

    (dead_lettered,) = await running.log.wait_for(DeadLettered)
    assert dead_lettered.kept is False
    assert await running.backend.dead_letters("orders.created", "billing") == []


async def test_lease_of_a_long_handler_is_renewed(running):
    runs = []

    async def charge(payload):
        runs.append(payload)
        await asyncio.sleep(0.4)  # four leases

    await running.route(make_route(charge, lease=0.1))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert runs == [1]
    assert running.log.of(LeaseLost) == []


async def test_paused_route_leaves_its_messages_ready(running):
    async def charge(payload):
        raise AssertionError("not called")

    await running.route(make_route(charge, paused=True))
    await running.publish("orders.created", 1)

    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (1, 0)


async def test_stop_finishes_running_handlers_and_releases_the_rest(running):
    started, go = asyncio.Event(), asyncio.Event()

    async def charge(payload):
        started.set()
        await go.wait()

    await running.route(make_route(charge, concurrency=1))
    await running.publish("orders.created", 1, 2, 3)
    await started.wait()
    stopping = asyncio.create_task(running.router.stop())
    go.set()

    async with within():
        assert await stopping == 0
    assert len(running.log.of(Handled)) == 1
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (2, 0)


async def test_handler_that_outlives_the_drain_time_is_released(running):
    started = asyncio.Event()

    async def charge(payload):
        started.set()
        await asyncio.Event().wait()

    await running.route(make_route(charge, drain=0.05))
    await running.publish("orders.created", 1)
    await started.wait()

    async with within():
        assert await running.router.stop() == 1
    (stopped,) = running.log.of(ConsumerStopped)
    assert stopped.abandoned == 1
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight, status.dead) == (1, 0, 0)


async def test_message_that_fails_when_is_settled_unhandled(running, tmp_path):
    from abe_router.schema import SchemaFolder

    big = SchemaFolder(tmp_path).inline({"properties": {"total": {"minimum": 100}}}, "when")
    got = []

    async def record(payload):
        got.append(payload["total"])

    await running.route(make_route(record, when=big))
    await running.publish("orders.created", {"total": 5}, {"total": 500})

    await running.log.wait_for(Handled)
    assert got == [500]
    assert [event.why for event in running.log.of(Skipped)] == ["when"]
