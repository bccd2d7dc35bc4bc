"""The ids that the Redis provider remembers: for how long, and only with their messages."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import Acked
from abe_router.backends.redis import RedisBackend
from abe_router.errors import BackendError, PayloadUnencodable
from abe_router.messages.message import Message, new_message
from abe_router.testing import RedisServer
from tests.limits import HANG

KEY = "orders.created"


@pytest.fixture
def ids(prefix):
    return f"abe-router:{{{prefix}{KEY}}}:ids"


def windowed(*names, window=60.0, key=KEY):
    return [(new_message(key, b"1", id=name), window) for name in names]


def ids_of(messages):
    return [message.id for message in messages]


async def test_the_set_expires_with_the_last_window(redis_backend, redis_client, ids):
    await redis_backend.append_once([*windowed("a", window=100.0), *windowed("b", window=5.0)])
    assert await redis_client.zrange(ids, 0, -1) == [b"b", b"a"]
    assert 99.0 < await redis_client.pttl(ids) / 1000 <= 100.0
    await redis_backend.append_once(windowed("c", window=5.0))
    assert 90.0 < await redis_client.pttl(ids) / 1000 <= 100.0


async def test_expired_ids_are_deleted_in_bounded_steps(redis_backend, redis_client, ids):
    old = {f"old-{n}": n for n in range(2_000)}
    await redis_client.zadd(ids, old)
    await redis_backend.append_once(windowed("a"))
    after = await redis_client.zcard(ids)
    assert 2_000 - 500 < after < 2_000
    for n in range(20):
        await redis_backend.append_once(windowed(f"b{n}"))
    assert await redis_client.zcard(ids) == 21


async def test_the_set_is_gone_when_all_windows_are_over(redis_backend, redis_client, ids):
    await redis_backend.append_once(windowed("a", window=0.05))
    async with asyncio.timeout(HANG):
        while await redis_client.exists(ids):
            await asyncio.sleep(0.01)


async def test_without_a_window_there_is_no_set(redis_backend, redis_client, ids, prefix):
    await redis_backend.append_once(windowed("a", window=0.0))
    handle = await redis_backend.subscribe(KEY, "billing")
    (held,) = await handle.fetch(1, 1.0)
    (output,) = [message for message, _ in windowed("b", key="orders.paid")]
    assert not await handle.settle([(held, Acked((output,)))])
    assert await redis_client.xlen(f"{prefix}orders.paid") == 1
    assert not await redis_client.exists(ids, f"abe-router:{{{prefix}orders.paid}}:ids")


async def test_callers_of_one_turn_share_a_call(redis_backend, redis_client):
    await redis_backend.append_once(windowed("warm"))
    before = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    keys = (KEY, "orders.paid")
    await asyncio.gather(*(redis_backend.append_once(windowed(f"i{n}", key=keys[n % 2])) for n in range(100)))
    after = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    # One call appends, and one records the new key.
    assert after - before <= 2


async def test_a_large_append_keeps_its_order(redis_backend):
    names = [f"i{n}" for n in range(1_300)]
    assert await redis_backend.append_once(windowed(*names)) == []
    handle = await redis_backend.subscribe(KEY, "billing")
    came = []
    while fetched := await handle.fetch(2_000, 0.2):
        came += fetched
    assert [delivery.message.id for delivery in came] == names
    again = await redis_backend.append_once(windowed("new", *names))
    assert ids_of(again) == names


async def test_the_id_of_a_refused_message_is_not_remembered(redis_backend, redis_client, ids, prefix):
    await redis_client.set(f"{prefix}{KEY}", "not a stream")
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await redis_backend.append_once(windowed("a"))
    assert not await redis_client.exists(ids)
    await redis_client.delete(f"{prefix}{KEY}")
    assert await redis_backend.append_once(windowed("a")) == []


async def test_the_expired_id_of_a_refused_message_is_not_remembered_again(
    redis_backend, redis_client, ids, prefix
):
    await redis_client.zadd(ids, {"a": 1})
    await redis_client.set(f"{prefix}{KEY}", "not a stream")
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await redis_backend.append_once(windowed("a"))
    await redis_client.delete(f"{prefix}{KEY}")
    assert await redis_backend.append_once(windowed("a")) == []


async def test_a_refusal_of_one_stream_fails_only_its_own_caller(redis_backend, redis_client, prefix):
    await redis_client.set(f"{prefix}orders.paid", "not a stream")
    good = redis_backend.append_once(windowed("a"))
    bad = redis_backend.append_once(windowed("a", key="orders.paid"))
    kept, refused = await asyncio.gather(good, bad, return_exceptions=True)
    assert kept == []
    assert isinstance(refused, BackendError)


async def test_text_that_is_not_unicode_fails_only_its_own_caller(redis_backend):
    bad = redis_backend.append_once([*windowed("a"), (Message("\udcff", KEY, b"1"), 60.0)])
    good = redis_backend.append_once(windowed("b"))
    async with asyncio.timeout(HANG):
        refused, kept = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(refused, PayloadUnencodable)
    assert kept == []
    assert ids_of(await redis_backend.append_once(windowed("a", "b"))) == ["b"]


async def test_an_unexpected_error_fails_all_callers_of_a_batch(redis_backend):
    calls = [windowed("a"), [(Message("b", KEY, b"1", published_at=object()), 60.0)]]
    async with asyncio.timeout(HANG):
        results = await asyncio.gather(*map(redis_backend.append_once, calls), return_exceptions=True)
    assert [isinstance(answer, BackendError) for answer in results] == [True, True]
    assert await redis_backend.append_once(windowed("a")) == []


async def test_no_id_is_remembered_by_a_server_without_memory(tmp_path):
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path, options=["--maxmemory-policy", "noeviction"]) as server:
        async with RedisBackend.from_url(server.url) as backend:
            assert await backend.append_once(windowed("a")) == []
            client = server.client()
            await client.config_set("maxmemory", 1)
            with pytest.raises(BackendError, match="OOM"):
                await backend.append_once(windowed("b", "c"))
            await client.config_set("maxmemory", 0)
            assert await client.zrange(f"abe-router:{{{KEY}}}:ids", 0, -1) == [b"a"]
            assert ids_of(await backend.append_once(windowed("a", "b", "c"))) == ["a"]
            assert await client.xlen(KEY) == 3


async def test_calls_with_and_without_windows_share_a_batch(redis_backend, redis_client, ids, prefix):
    plain = [new_message(KEY, b"1", id="a")]
    calls = [
        redis_backend.append(plain),
        redis_backend.append_once(windowed("a")),
        redis_backend.append(plain),
        redis_backend.append_once([*windowed("b"), *windowed("a", window=5.0), *windowed("c", window=0.0)]),
        redis_backend.append_once(windowed("a", "b", "c")),
    ]
    _, first, _, second, third = await asyncio.gather(*calls)
    assert [ids_of(found) for found in (first, second, third)] == [[], ["a"], ["a", "b"]]
    entries = await redis_client.xrange(prefix + KEY)
    assert [fields[b"id"] for _, fields in entries] == [b"a", b"a", b"a", b"b", b"c", b"c"]
    assert await redis_client.zcard(ids) == 3
