"""The ids that the Redis provider keeps: where, for how long, and not without their messages."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import Acked
from abe_router.backends.redis import RedisBackend
from abe_router.errors import BackendError, PayloadUnencodable
from abe_router.messages.message import Message, new_message
from abe_router.testing import RedisServer

KEY = "orders.created"


@pytest.fixture
def ids(prefix):
    return f"abe-router:{{{prefix}{KEY}}}:ids"


def windowed(*names, window=60.0, key=KEY):
    return [(new_message(key, b"1", id=name), window) for name in names]


def passed_over(messages):
    return [message.id for message in messages]


async def test_they_end_with_the_last_of_their_windows(redis_backend, redis_client, ids):
    await redis_backend.append_once([*windowed("a", window=100.0), *windowed("b", window=5.0)])
    assert await redis_client.zrange(ids, 0, -1) == [b"b", b"a"]
    assert 99.0 < await redis_client.pttl(ids) / 1000 <= 100.0
    await redis_backend.append_once(windowed("c", window=5.0))
    assert 90.0 < await redis_client.pttl(ids) / 1000 <= 100.0


async def test_what_has_ended_is_forgotten_in_bounded_steps(redis_backend, redis_client, ids):
    old = {f"old-{n}": n for n in range(2_000)}
    await redis_client.zadd(ids, old)
    await redis_backend.append_once(windowed("a"))
    after = await redis_client.zcard(ids)
    assert 2_000 - 500 < after < 2_000
    for n in range(20):
        await redis_backend.append_once(windowed(f"b{n}"))
    assert await redis_client.zcard(ids) == 21


async def test_the_set_is_gone_when_all_have_ended(redis_backend, redis_client, ids):
    await redis_backend.append_once(windowed("a", window=0.05))
    async with asyncio.timeout(5):
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


async def test_callers_of_one_turn_go_in_one_call_for_each_stream(redis_backend, redis_client):
    await redis_backend.append_once(windowed("warm"))
    before = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    keys = (KEY, "orders.paid")
    await asyncio.gather(*(redis_backend.append_once(windowed(f"i{n}", key=keys[n % 2])) for n in range(100)))
    after = (await redis_client.info("commandstats"))["cmdstat_evalsha"]["calls"]
    # One more notes the key that is new.
    assert after - before <= len(keys) + 1


async def test_more_than_a_call_takes_goes_in_several_and_in_order(redis_backend):
    names = [f"i{n}" for n in range(1_300)]
    assert await redis_backend.append_once(windowed(*names)) == []
    handle = await redis_backend.subscribe(KEY, "billing")
    came = []
    while fetched := await handle.fetch(2_000, 0.2):
        came += fetched
    assert [delivery.message.id for delivery in came] == names
    again = await redis_backend.append_once(windowed("new", *names))
    assert passed_over(again) == names


async def test_no_id_is_remembered_whose_message_the_stream_refused(redis_backend, redis_client, ids, prefix):
    await redis_client.set(f"{prefix}{KEY}", "not a stream")
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await redis_backend.append_once(windowed("a"))
    assert not await redis_client.exists(ids)
    await redis_client.delete(f"{prefix}{KEY}")
    assert await redis_backend.append_once(windowed("a")) == []


async def test_an_id_that_had_ended_is_not_remembered_for_a_message_that_was_refused(
    redis_backend, redis_client, ids, prefix
):
    await redis_client.zadd(ids, {"a": 1})
    await redis_client.set(f"{prefix}{KEY}", "not a stream")
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await redis_backend.append_once(windowed("a"))
    await redis_client.delete(f"{prefix}{KEY}")
    assert await redis_backend.append_once(windowed("a")) == []


async def test_a_refusal_of_one_stream_leaves_the_others_alone(redis_backend, redis_client, prefix):
    await redis_client.set(f"{prefix}orders.paid", "not a stream")
    good = redis_backend.append_once(windowed("a"))
    bad = redis_backend.append_once(windowed("a", key="orders.paid"))
    kept, refused = await asyncio.gather(good, bad, return_exceptions=True)
    assert kept == []
    assert isinstance(refused, BackendError)


async def test_what_is_no_text_is_refused_to_its_own_caller_alone(redis_backend):
    bad = redis_backend.append_once([*windowed("a"), (Message("\udcff", KEY, b"1"), 60.0)])
    good = redis_backend.append_once(windowed("b"))
    async with asyncio.timeout(5):
        refused, kept = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(refused, PayloadUnencodable)
    assert kept == []
    assert passed_over(await redis_backend.append_once(windowed("a", "b"))) == ["b"]


async def test_whatever_spoils_a_call_all_who_share_it_are_told(redis_backend):
    asked = [windowed("a"), [(Message("b", KEY, b"1", published_at=object()), 60.0)]]
    async with asyncio.timeout(5):
        told = await asyncio.gather(*map(redis_backend.append_once, asked), return_exceptions=True)
    assert [isinstance(answer, BackendError) for answer in told] == [True, True]
    assert await redis_backend.append_once(windowed("a")) == []


async def test_no_id_is_remembered_when_the_server_has_no_memory_left(tmp_path):
    if not RedisServer.installed():
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path, options=["--maxmemory-policy", "noeviction"]) as server:
        async with RedisBackend.from_url(server.url) as backend:
            assert await backend.append_once(windowed("a")) == []
            line = (await backend._opened()).line
            await line.send("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BackendError, match="OOM"):
                await backend.append_once(windowed("b", "c"))
            await line.send("CONFIG", "SET", "maxmemory", "0")
            assert await line.send("ZRANGE", f"abe-router:{{{KEY}}}:ids", 0, -1) == [b"a"]
            assert passed_over(await backend.append_once(windowed("a", "b", "c"))) == ["a"]
            assert await line.send("XLEN", KEY) == 3
