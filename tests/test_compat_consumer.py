"""AsyncLoopConsumer: the third and fourth step of the guide, and its method `handler`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import AsyncExitStack
from unittest import mock

import pytest

from abe_router.backends.memory import MemoryBackend
from abe_router.compat.consumer import AsyncLoopConsumer
from abe_router.errors import BackendUnavailable, HandlerError, KeyInvalid, Reject
from abe_router.routing.policies import RetryPolicy
from tests.limits import HANG

AT_ONCE = RetryPolicy(attempts=3, initial=0, jitter=False)


@pytest.fixture
def backend():
    return MemoryBackend()


class Recorder:
    """A handler that records its payloads."""

    def __init__(self) -> None:
        self.payloads = []
        self._changed = asyncio.Event()

    async def __call__(self, payload):
        self.payloads.append(payload)
        self._changed.set()

    async def wait(self, count: int) -> list:
        async with asyncio.timeout(HANG):
            while len(self.payloads) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.payloads


async def test_the_example_of_the_guide_publishes_and_consumes(backend):
    got = Recorder()
    await backend.publish("orders.created", {"order_id": "A-123", "total": 42.0})
    async with AsyncLoopConsumer(backend, group="billing") as consumer, asyncio.TaskGroup() as group:
        group.create_task(consumer.run(got))
        assert await got.wait(1) == [{"order_id": "A-123", "total": 42.0}]
        await consumer.shutdown()
    (status,) = await backend.status()
    assert (status.pattern, status.group, status.ready, status.in_flight) == ("#", "billing", 0, 0)


async def test_messages_are_handled_one_at_a_time_in_order(backend):
    now, seen = 0, []

    async def handle(payload):
        nonlocal now
        now += 1
        assert now == 1
        await asyncio.sleep(0)
        now -= 1
        seen.append(payload)
        if payload == 9:
            await consumer.shutdown()

    consumer = AsyncLoopConsumer(backend)
    for number in range(10):
        await backend.publish("a", number)
    await consumer.run(handle)
    assert seen == list(range(10))


async def test_a_key_selects_messages(backend):
    got = Recorder()
    consumer = AsyncLoopConsumer(backend, "billing", key="orders.*")
    running = asyncio.create_task(consumer.run(got))
    for key in ("payments.settled", "orders.created"):
        await backend.publish(key, key)
    assert await got.wait(1) == ["orders.created"]
    await consumer.shutdown()
    await running


async def test_groups_each_get_every_message_and_members_of_one_share_them(backend):
    billing, audit = Recorder(), Recorder()
    consumers = [
        (AsyncLoopConsumer(backend, "billing"), billing),
        (AsyncLoopConsumer(backend, "billing"), billing),
        (AsyncLoopConsumer(backend, "audit"), audit),
    ]
    async with asyncio.TaskGroup() as tasks:
        for consumer, got in consumers:
            tasks.create_task(consumer.run(got))
        for number in range(20):
            await backend.publish("a", number)
        assert sorted(await billing.wait(20)) == await audit.wait(20) == list(range(20))
        for consumer, _ in consumers:
            await consumer.shutdown()


async def test_a_plain_function_runs_in_a_thread_and_gets_the_message(backend):
    seen = []

    def handle(payload, message):
        seen.append(
            (payload, message.key, message.attempt, threading.current_thread() is threading.main_thread())
        )
        asyncio.run_coroutine_threadsafe(consumer.shutdown(), loop)

    loop = asyncio.get_running_loop()
    consumer = AsyncLoopConsumer(backend)
    await backend.publish("orders.created", 1)
    await consumer.run(handle)
    assert seen == [(1, "orders.created", 1, False)]


async def test_a_failed_message_is_tried_again_and_becomes_a_dead_letter(backend, caplog):
    attempts, done = [], asyncio.Event()

    async def handle(payload, message):
        attempts.append(message.attempt)
        if len(attempts) == 3:
            done.set()
        raise ValueError("no funds")

    consumer = AsyncLoopConsumer(backend, "billing", retry=AT_ONCE)
    running = asyncio.create_task(consumer.run(handle))
    await backend.publish("orders.created", {"total": 5})
    await done.wait()
    await consumer.shutdown()
    await running
    (dead,) = await backend.dead_letters("#", "billing")
    assert (attempts, dead.reason.error, dead.attempts) == ([1, 2, 3], "ValueError", 3)
    assert caplog.text.count("failed: ValueError: no funds") == 3


async def test_shutdown_finishes_the_running_message_and_leaves_the_next(backend):
    began, go, seen = asyncio.Event(), asyncio.Event(), []

    async def handle(payload):
        began.set()
        await go.wait()
        seen.append(payload)

    consumer = AsyncLoopConsumer(backend)
    running = asyncio.create_task(consumer.run(handle))
    for number in (1, 2):
        await backend.publish("a", number)
    await began.wait()
    stopping = [asyncio.create_task(consumer.shutdown()) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in (running, *stopping))
    go.set()
    await asyncio.gather(running, *stopping)
    (status,) = await backend.status()
    assert (seen, status.ready) == ([1], 1)


async def test_shutdown_before_run_makes_run_return_at_once(backend):
    consumer = AsyncLoopConsumer(backend)
    running = asyncio.create_task(consumer.run(Recorder()))
    await consumer.shutdown()
    await consumer.shutdown()
    await asyncio.wait_for(running, HANG)


async def test_a_second_run_returns_at_once(backend):
    got = Recorder()
    consumer = AsyncLoopConsumer(backend)
    running = asyncio.create_task(consumer.run(got))
    await backend.publish("a", 1)
    await got.wait(1)
    await asyncio.wait_for(consumer.run(got), HANG)
    assert not running.done()
    await consumer.shutdown()
    await running


async def test_a_handler_can_shut_down_its_own_consumer(backend):
    async def handle(payload):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.shutdown())

    consumer = AsyncLoopConsumer(backend)
    await backend.publish("a", 1)
    await asyncio.wait_for(consumer.run(handle), HANG)
    (status,) = await backend.status()
    assert (status.ready, status.in_flight) == (0, 0)


async def test_it_works_in_an_exit_stack_as_in_the_guide(backend):
    got, stack = Recorder(), AsyncExitStack()
    consumer = AsyncLoopConsumer(backend)
    await stack.enter_async_context(consumer)
    running = asyncio.create_task(consumer.run(got))
    await backend.publish("a", 1)
    await got.wait(1)
    await consumer.shutdown()
    await stack.aclose()
    await running


async def test_cancelling_run_stops_the_handler_and_releases_its_message(backend):
    began = asyncio.Event()

    async def handle(payload):
        began.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(AsyncLoopConsumer(backend).run(handle))
    await backend.publish("a", 1)
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (status,) = await backend.status()
    assert (status.ready, status.in_flight) == (1, 0)


async def test_an_unexpected_error_is_logged_and_raised(backend, caplog):
    async def subscribe(pattern, group, *, start, lease):
        raise RuntimeError("a bug")

    backend.subscribe = subscribe
    with pytest.raises(RuntimeError, match="a bug"):
        await AsyncLoopConsumer(backend, "billing").run(Recorder())
    assert "#/billing: the consumer failed" in caplog.text


async def test_it_waits_for_a_backend_that_cannot_be_reached(backend, caplog):
    subscribe, calls = backend.subscribe, []

    async def failing(pattern, group, *, start, lease):
        calls.append(group)
        if len(calls) == 1:
            raise BackendUnavailable("no connection")
        return await subscribe(pattern, group, start=start, lease=lease)

    backend.subscribe = failing
    got = Recorder()
    async with AsyncLoopConsumer(backend) as consumer:
        running = asyncio.create_task(consumer.run(got))
        await backend.publish("a", 1)
        await got.wait(1)
    await running
    assert "no connection" in caplog.text


async def test_invalid_arguments_raise_errors_at_once(backend):
    with pytest.raises(KeyInvalid, match="neither a routing key nor a pattern"):
        AsyncLoopConsumer(backend, key="orders created")
    with pytest.raises(ValueError, match="is not a group"):
        AsyncLoopConsumer(backend, "a/b")
    with pytest.raises(TypeError, match="str is not a backend"):
        AsyncLoopConsumer("redis")
    with pytest.raises(HandlerError, match="takes no argument"):
        await AsyncLoopConsumer(backend).run(lambda: None)
    with pytest.raises(RuntimeError, match="no handler before `run`"):
        await AsyncLoopConsumer(backend).handler({}, None)


async def test_an_override_of_handler_adds_custom_retries_and_dead_letters(backend):
    class Careful(AsyncLoopConsumer):
        async def handler(self, payload, message):
            try:
                async with asyncio.timeout(HANG):
                    return await super().handler(payload, message)
            except ConnectionError:
                if message.attempt < 3:
                    raise
                await self.backend.publish(f"{message.key}.failed", payload)
            except KeyError as error:
                raise Reject(f"no {error} in the payload") from error

    seen = []

    async def handle(payload):
        seen.append(payload["order_id"])
        raise ConnectionError("the bank is away")

    failed = Recorder()
    async with (
        Careful(backend, "billing", key="orders.created", retry=AT_ONCE) as careful,
        AsyncLoopConsumer(backend, "desk", key="orders.created.failed") as desk,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(careful.run(handle))
        tasks.create_task(desk.run(failed))
        await backend.publish("orders.created", {})
        await backend.publish("orders.created", {"order_id": "A"})
        assert await failed.wait(1) == [{"order_id": "A"}]
        await careful.shutdown()
        await desk.shutdown()
    (dead,) = await backend.dead_letters("orders.created", "billing")
    assert (dead.reason.kind, dead.reason.message) == ("rejected", "no 'order_id' in the payload")
    assert seen == ["A", "A", "A"]


class Plain:
    """A provider with the methods that Abstract Backend requires."""

    def __init__(self, *payloads, then=None):
        self.payloads, self.then, self.groups, self.sent = payloads, then, [], []

    async def publish(self, key, payload):
        self.sent.append((key, payload))

    async def consume(self, *, group=None):
        self.groups.append(group)
        for payload in self.payloads:
            yield payload
        if self.then is not None:
            await self.then.wait()


async def test_a_plain_provider_is_consumed_until_its_messages_end():
    plain, got = Plain({"id": 1}, {"id": 2}), Recorder()
    await asyncio.wait_for(AsyncLoopConsumer(plain, group="billing").run(got), HANG)
    assert (got.payloads, plain.groups) == ([{"id": 1}, {"id": 2}], ["billing"])


async def test_without_a_group_a_plain_provider_gets_no_group():
    plain = Plain()
    await asyncio.wait_for(AsyncLoopConsumer(plain).run(Recorder()), HANG)
    assert plain.groups == [None]


async def test_a_plain_provider_is_not_read_ahead():
    began, go = asyncio.Event(), asyncio.Event()
    plain = Plain({"id": 1}, {"id": 2}, {"id": 3})
    given = []

    async def consume(*, group=None):
        for payload in plain.payloads:
            given.append(payload["id"])
            yield payload

    async def handle(payload):
        began.set()
        await go.wait()

    plain.consume = consume
    consumer = AsyncLoopConsumer(plain)
    running = asyncio.create_task(consumer.run(handle))
    await began.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert given == [1]
    go.set()
    await consumer.shutdown()
    await running


async def test_a_failure_on_a_plain_provider_is_logged_and_the_next_message_is_handled(caplog):
    seen = []

    async def handle(payload):
        if payload["id"] == 2:
            raise ValueError("bad one")
        seen.append(payload["id"])

    await asyncio.wait_for(AsyncLoopConsumer(Plain({"id": 1}, {"id": 2}, {"id": 3})).run(handle), HANG)
    assert seen == [1, 3]
    assert "bad one" in caplog.text
    assert "keeps no dead letters" in caplog.text
    assert "at most once" in caplog.text


async def test_shutdown_ends_a_plain_provider_that_waits():
    consumer = AsyncLoopConsumer(Plain(then=asyncio.Event()))
    running = asyncio.create_task(consumer.run(Recorder()))
    await asyncio.sleep(0)
    await asyncio.wait_for(consumer.shutdown(), HANG)
    await running


async def test_a_key_is_refused_for_a_plain_provider():
    with pytest.raises(ValueError, match="Plain does not report the key"):
        AsyncLoopConsumer(Plain(), key="orders.*")


async def test_mocks_can_be_backend_and_handler():
    backend = mock.AsyncMock(spec=Plain)
    backend.consume.return_value.__aiter__.return_value = [{"id": 1}, {"id": 2}]
    handler = mock.AsyncMock()
    await asyncio.wait_for(AsyncLoopConsumer(backend, group="g").run(handler), HANG)
    assert [call.args for call in handler.await_args_list] == [({"id": 1},), ({"id": 2},)]
    backend.consume.assert_called_once_with(group="g")


SCRIPT = """
import asyncio, sys
from abe_router.compat.load import load_backend
from abe_router.compat.consumer import AsyncLoopConsumer

async def handle(payload: dict[str, object]) -> None:
    print("Processing", payload, flush=True)

async def main() -> None:
    backend = load_backend("memory")
    await backend.publish("orders.created", {"order_id": "A-123"})
    consumer = AsyncLoopConsumer(backend, group="billing")
    await consumer.run(handle)

if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
"""


def test_the_program_of_the_guide_ends_cleanly_on_a_keyboard_interrupt(tmp_path):
    script = tmp_path / "consumer.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "Processing {'order_id': 'A-123'}\n"
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=HANG)
    assert (process.returncode, err) == (0, "")


async def test_order_by_handles_messages_with_one_value_in_order():
    backend, done = MemoryBackend(), []

    async def charge(order, message):
        if order["number"] == 0 and message.attempt == 1:
            raise ValueError("no stock")
        done.append((order["id"], order["number"]))
        if len(done) == 6:
            await consumer.shutdown()

    retry = RetryPolicy(initial=0.01, jitter=False)
    consumer = AsyncLoopConsumer(backend, concurrency=4, order_by="/id", retry=retry)
    for number in range(3):
        for id in "ab":
            await backend.publish("orders.created", {"id": id, "number": number})
    await consumer.run(charge)
    assert [number for id, number in done if id == "a"] == [0, 1, 2]
    assert [number for id, number in done if id == "b"] == [0, 1, 2]


def test_order_by_requires_a_pointer_and_a_backend_with_order():
    with pytest.raises(ValueError, match="is not a JSON pointer"):
        AsyncLoopConsumer(MemoryBackend(), order_by="customer.id")
    with pytest.raises(ValueError, match="keeps no order"):
        AsyncLoopConsumer(mock.Mock(spec_set=["publish", "consume"]), order_by="/customer/id")


@pytest.mark.parametrize(
    ("option", "error", "words"),
    [
        ({"concurrency": 0}, ValueError, "concurrency is a whole number, at least 1, not 0"),
        ({"concurrency": "x"}, ValueError, "concurrency is a whole number, at least 1, not 'x'"),
        ({"timeout": -1}, ValueError, "timeout is a number of seconds above 0, not -1"),
        ({"timeout": float("nan")}, ValueError, "timeout is a number of seconds above 0, not nan"),
        ({"retry": 5}, TypeError, "retry is a RetryPolicy, not int"),
    ],
)
def test_an_invalid_option_is_refused_by_the_constructor(option, error, words):
    with pytest.raises(error, match=words):
        AsyncLoopConsumer(MemoryBackend(), **option)
