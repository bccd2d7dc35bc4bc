"""How a message flows: published, fetched, tried, settled. Read this file first."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from abe_router.routing.policies import RetryPolicy

from abe_router.errors import Reject, Retry
from abe_router.messages.message import Message
from abe_router.observe.events import ConsumerStopped, DeadLettered, Handled, LeaseLost, Retried, Skipped

from .conftest import make_route, within


async def test_a_handler_gets_the_payload(running):
    got = []

    async def charge(payload):
        got.append(payload)

    await running.route(make_route(charge))
    await running.publish("orders.created", {"id": "a1"})

    await running.log.wait_for(Handled)
    assert got == [{"id": "a1"}]


async def test_a_second_parameter_gets_the_message(running):
    got = []

    async def charge(payload, message):
        got.append(message)

    await running.route(make_route(charge))
    sent = await running.backend.publish("orders.created", {"id": 1}, headers={"trace": "t"})

    await running.log.wait_for(Handled)
    assert got == [Message(sent.id, "orders.created", b'{"id":1}', {"trace": "t"}, sent.published_at, 1)]


async def test_a_plain_function_runs_off_the_event_loop(running):
    threads = []

    def charge(payload):
        threads.append(threading.current_thread())

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert threads[0] is not threading.main_thread()


async def test_every_group_gets_its_own_copy_and_a_pattern_gets_all_it_matches(running):
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


async def test_no_more_than_concurrency_run_at_once(running):
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


async def test_a_failure_is_tried_again_until_the_attempts_are_used_up(running):
    attempts = []

    async def charge(payload, message):
        attempts.append(message.attempt)
        raise ValueError("no funds")

    await running.route(make_route(charge))
    await running.publish("orders.created", {"total": 5})

    (died,) = await running.log.wait_for(DeadLettered)
    assert attempts == [1, 2, 3]
    assert [event.attempt for event in running.log.of(Retried)] == [1, 2]
    assert (died.kind, died.error, died.attempts) == ("failed", "ValueError: no funds", 3)
    (letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert letter.message.payload == {"total": 5}
    assert letter.reason.error == "ValueError"
    assert "charge" in letter.reason.traceback
    assert letter.first_failed_at <= letter.last_failed_at


async def test_reject_dead_letters_at_once(running):
    async def charge(payload):
        raise Reject("unknown currency")

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    (died,) = await running.log.wait_for(DeadLettered)
    assert (died.kind, died.attempts) == ("rejected", 1)


async def test_retry_after_sets_the_delay(running):
    async def charge(payload, message):
        if message.attempt == 1:
            raise Retry(after=0.02)

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert [event.delay for event in running.log.of(Retried)] == [0.02]


async def test_a_delayed_message_does_not_hold_up_those_behind_it(running):
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


async def test_a_handler_that_runs_too_long_is_ended_and_counted_as_failed(running):
    ended = asyncio.Event()

    async def charge(payload):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await running.route(make_route(charge, timeout=0.05, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (died,) = await running.log.wait_for(DeadLettered)
    assert ended.is_set()
    assert died.kind == "timeout"


async def test_after_a_timeout_the_same_worker_goes_on(running):
    async def charge(payload):
        if payload == 1:
            await asyncio.Event().wait()

    await running.route(make_route(charge, concurrency=1, timeout=0.05, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1, 2, 3)

    await running.log.wait_for(Handled, 2)


async def test_a_handler_that_swallows_its_cancellation_counts_as_handled(running):
    async def charge(payload):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    await running.route(make_route(charge, concurrency=1, timeout=0.05))
    await running.publish("orders.created", 1, 2)

    await running.log.wait_for(Handled, 2)


async def test_even_sys_exit_in_a_handler_is_a_failure_of_that_message_alone(running):
    async def charge(payload):
        if payload == 1:
            raise SystemExit(3)

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1, 2)

    (died,) = await running.log.wait_for(DeadLettered)
    await running.log.wait_for(Handled)
    assert died.error == "SystemExit: 3"


async def test_an_error_whose_text_cannot_be_made_is_a_failure_like_any_other(running):
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    async def charge(payload):
        raise Unspeakable

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (died,) = await running.log.wait_for(DeadLettered)
    assert died.error == "Unspeakable: its text cannot be made: its __str__ raises"


@pytest.mark.parametrize(
    ("after", "error"),
    [
        (float("nan"), "ValueError: Retry(after=...) takes a finite number of seconds, not nan"),
        (float("inf"), "ValueError: Retry(after=...) takes a finite number of seconds, not inf"),
        ("5", "TypeError: Retry(after=...) takes seconds or a timedelta, not str"),
    ],
)
async def test_a_retry_after_what_is_no_delay_is_a_failure_that_says_so(running, after, error):
    async def charge(payload):
        raise Retry(after=after)

    await running.route(make_route(charge, retry=RetryPolicy(attempts=1)))
    await running.publish("orders.created", 1)

    (died,) = await running.log.wait_for(DeadLettered)
    assert died.error == error


@pytest.mark.parametrize(("after", "delay"), [(timedelta(milliseconds=20), 0.02), (-5, 0.0)])
async def test_a_retry_may_say_its_delay_as_a_timedelta_and_one_that_is_over_is_none(running, after, delay):
    async def charge(payload, message):
        if message.attempt == 1:
            raise Retry(after=after)

    await running.route(make_route(charge))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert running.log.of(Retried)[0].delay == delay


async def test_what_is_handed_out_too_often_is_dead_lettered_unhandled(running):
    called = []

    async def charge(payload):
        called.append(payload)

    thief = await running.backend.subscribe("orders.created", "billing", lease=0.01)
    await running.publish("orders.created", "poison")
    for _ in range(3):
        assert await thief.fetch(1, 1.0)  # and lets the lease run out, as a killed worker would

    await running.route(make_route(charge, max_deliveries=3))

    (died,) = await running.log.wait_for(DeadLettered)
    assert died.kind == "max_deliveries"
    assert called == []


async def test_a_body_that_is_not_json_is_dead_lettered(running):
    async def charge(payload):
        raise AssertionError("not called")

    await running.route(make_route(charge))
    await running.backend.append([Message("x", "orders.created", b"{nope")])

    (died,) = await running.log.wait_for(DeadLettered)
    assert died.kind == "malformed"
    (letter,) = await running.backend.dead_letters("orders.created", "billing")
    assert letter.message.body == b"{nope"


async def test_without_dead_letters_what_failed_is_dropped_and_told(running):
    async def charge(payload):
        raise Reject("no")

    await running.route(make_route(charge, dead_letter=False))
    await running.publish("orders.created", 1)

    (died,) = await running.log.wait_for(DeadLettered)
    assert died.kept is False
    assert await running.backend.dead_letters("orders.created", "billing") == []


async def test_a_long_handler_keeps_its_lease_by_heartbeat(running):
    runs = []

    async def charge(payload):
        runs.append(payload)
        await asyncio.sleep(0.4)  # the work: four leases long

    await running.route(make_route(charge, lease=0.1))
    await running.publish("orders.created", 1)

    await running.log.wait_for(Handled)
    assert runs == [1]
    assert running.log.of(LeaseLost) == []


async def test_a_paused_route_keeps_its_messages_waiting(running):
    async def charge(payload):
        raise AssertionError("not called")

    await running.route(make_route(charge, paused=True))
    await running.publish("orders.created", 1)

    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (1, 0)


async def test_stopping_finishes_what_runs_and_hands_back_what_waits(running):
    started, go = asyncio.Event(), asyncio.Event()

    async def charge(payload):
        started.set()
        await go.wait()

    await running.route(make_route(charge, concurrency=1))
    await running.publish("orders.created", 1, 2, 3)
    await started.wait()
    stopping = asyncio.create_task(running.router.stop())
    go.set()

    async with within(2):
        assert await stopping == 0
    assert len(running.log.of(Handled)) == 1
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight) == (2, 0)


async def test_a_handler_that_outlives_the_drain_time_is_handed_back_never_dead_lettered(running):
    started = asyncio.Event()

    async def charge(payload):
        started.set()
        await asyncio.Event().wait()

    await running.route(make_route(charge, drain=0.05))
    await running.publish("orders.created", 1)
    await started.wait()

    async with within(2):
        assert await running.router.stop() == 1
    (stopped,) = running.log.of(ConsumerStopped)
    assert stopped.abandoned == 1
    (status,) = await running.backend.status()
    assert (status.ready, status.in_flight, status.dead) == (1, 0, 0)


async def test_a_filtered_message_is_settled_without_its_handler(running, tmp_path):
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
