"""Interoperation with the published packages abstract-backend and abe-redis, in both directions."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

pytest.importorskip("abe.backends.message_queue.loader", reason="needs abstract-backend, Python 3.12")

from abe.backends.message_queue import loader as their_loader
from abe.backends.message_queue.consumer import AsyncLoopConsumer as TheirConsumer
from abe.backends.message_queue.service.memory import MemoryBackend as TheirMemory
from abe.types import MessageQueueBackendProtocol

from abe_router import AsyncLoopConsumer, Router, load_backend
from abe_router.backends import providers
from abe_router.backends.abstract import AbstractBackend
from tests.limits import HANG

NAMES = ["memory", "sqlite", "redis"]


@pytest.fixture
def environment(tmp_path, monkeypatch, request):
    """Configure every provider by its variables."""
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "queue.db"))
    if "redis" in request.node.name:
        monkeypatch.setenv("REDIS_URL", request.getfixturevalue("abe_redis_url"))
    return monkeypatch


@pytest.fixture
def their_redis(environment):
    plugin = pytest.importorskip("abe_plugin.backends.message_queue")
    return plugin.RedisMessageQueueBackend.from_env()


@pytest.fixture
def their_memory():
    TheirMemory._queue = asyncio.Queue()
    with pytest.warns(UserWarning, match="development/testing only"):
        return load_backend("abstract+memory")


async def first(stream, count=1):
    """Return the first payloads of a stream, and close it."""
    got = []
    async with asyncio.timeout(HANG):
        async for payload in stream:
            got.append(payload)
            if len(got) == count:
                break
    await stream.aclose()
    return got


@pytest.mark.parametrize("name", NAMES)
async def test_abstract_backend_loads_our_providers(environment, name):
    environment.setenv("QUEUE_BACKEND", name)
    backend = their_loader.load_backend()
    assert type(backend).__module__.startswith("abe_router.")
    assert isinstance(backend, MessageQueueBackendProtocol)
    await backend.publish("orders.created", {"order_id": "A-123"})
    assert {"order_id": "A-123"} in await first(backend.consume(group=f"{name}-test"))
    await backend.close()


@pytest.mark.parametrize("name", NAMES)
async def test_consumer_of_abstract_backend_runs_on_our_providers(environment, name):
    environment.setenv("QUEUE_BACKEND", name)
    backend = their_loader.load_backend()
    got, done = [], asyncio.Event()

    async def handle(payload):
        got.append(payload["n"])
        if len(got) % 2:
            raise ValueError("the consumer logs this and continues")
        done.set()

    consumer = TheirConsumer(backend, group="billing")
    running = asyncio.create_task(consumer.run(handle))
    for number in (1, 2):
        await backend.publish("orders.created", {"n": number})
    async with asyncio.timeout(HANG):
        await done.wait()
    await consumer.shutdown()
    await asyncio.wait({running})
    await backend.close()
    assert got[-2:] == [1, 2]


async def test_our_redis_reads_messages_of_abe_redis(environment, their_redis):
    await their_redis.publish("orders.created", {"order_id": "A-123", "total": 42.0})
    await their_redis.close()
    async with load_backend("redis") as ours:
        assert await first(ours.consume(group="billing", key="orders.*")) == [
            {"order_id": "A-123", "total": 42.0}
        ]


async def test_abe_redis_reads_messages_of_our_redis(environment, their_redis):
    async with load_backend("redis") as ours:
        await ours.publish("slack:events", {"text": "hello"})
    assert await first(their_redis.consume(group="workers")) == [{"text": "hello"}]
    await their_redis.close()


async def test_our_consumer_runs_on_abe_redis(environment, their_redis):
    got = []

    async def handle(payload):
        got.append(payload)
        await consumer.shutdown()

    await their_redis.publish("slack:events", {"text": "hello"})
    consumer = AsyncLoopConsumer(their_redis, group="workers")
    async with asyncio.timeout(HANG):
        await consumer.run(handle)
    await their_redis.close()
    assert got == [{"text": "hello"}]


async def test_our_consumer_runs_on_the_memory_provider_of_abstract_backend(their_memory):
    got = []

    async def handle(payload):
        got.append(payload["n"])
        if payload["n"] == 3:
            await consumer.shutdown()

    backend = TheirMemory()
    for number in range(4):
        await backend.publish("a", {"n": number})
    consumer = AsyncLoopConsumer(backend)
    async with asyncio.timeout(HANG):
        await consumer.run(handle)
    assert got == [0, 1, 2, 3]


async def test_our_loader_finds_providers_registered_for_abstract_backend(their_memory):
    assert isinstance(their_memory, AbstractBackend)
    assert providers()["abstract+memory"].distribution == "abstract-backend"
    await their_memory.publish("orders.created", {"n": 1})
    assert await first(their_memory.consume(key="orders.*")) == [{"n": 1}]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_routes_file_runs_on_abe_redis_through_the_adapter(environment, their_redis, tmp_path, caplog):
    (tmp_path / "routes.yaml").write_text(
        "backend: abstract+redis://\n"
        "prefix: 'slack:'\n"  # abe-redis reads no other streams
        "routes:\n"
        "  orders.created: {consumers: {billing: 'their_handlers:charge'}}\n"
        "  orders.deleted: {consumers: {billing: 'their_handlers:forget'}}\n"
    )
    (tmp_path / "their_handlers.py").write_text(
        "import asyncio\n"
        "got = asyncio.Queue()\n"
        "async def charge(order): await got.put(('charge', order))\n"
        "async def forget(order): await got.put(('forget', order))\n"
    )
    async with Router.from_file(tmp_path / "routes.yaml", watch=False) as router:
        await router.publish("orders.deleted", {"id": 1})
        await router.publish("orders.created", {"id": 2})
        queue = sys.modules["their_handlers"].got
        async with asyncio.timeout(HANG):
            got = sorted([await queue.get(), await queue.get()])
    await their_redis.close()
    assert got == [("charge", {"id": 2}), ("forget", {"id": 1})]
    assert "at most once: no retries, no dead letters" in caplog.text
    (warning,) = router.table.warnings
    assert "delivers a message at most once, cannot delay a retry, keeps no dead letters" in warning.message
    gc.collect()  # abe-redis opens a connection per early call and leaks one
