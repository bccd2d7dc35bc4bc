"""The key-value store on Redis: what is stored, and what it costs."""

from __future__ import annotations

import asyncio

import pytest

from tests.limits import HANG


@pytest.fixture
def names(redis_backend):
    return redis_backend._names


async def expired(client, key):
    """Wait until the entries of a sorted set are due by the server's clock."""
    async with asyncio.timeout(HANG):
        while True:
            seconds, micros = await client.time()
            if not await client.zcount(key, seconds * 1000 + micros // 1000 + 1, "+inf"):
                return
            await asyncio.sleep(0.005)


async def test_a_revision_is_not_repeated_after_delete_expiry_and_in_other_buckets(
    redis_backend, redis_client, names
):
    revisions = [await redis_backend.put("b", "n", b"1"), await redis_backend.put("other", "n", b"1")]
    assert await redis_backend.delete("b", "n")
    revisions.append(await redis_backend.put("b", "n", b"1", expected=0, ttl=0.01))
    await expired(redis_client, names.expiry("b"))
    assert await redis_backend.get("b", "n") is None
    assert not await redis_backend.put("b", "n", b"2", expected=revisions[-1])
    revisions.append(await redis_backend.put("b", "n", b"2", expected=0))
    assert revisions == sorted(set(revisions))


async def test_of_many_writers_of_one_revision_one_wins(redis_backend):
    revision = await redis_backend.put("b", "n", b"0")
    writes = [redis_backend.put("b", "n", b"%d" % n, expected=revision) for n in range(20)]
    won = [written for written in await asyncio.gather(*writes) if written]
    assert len(won) == 1
    entry = await redis_backend.get("b", "n")
    assert (entry.revision, entry.value) == (won[0], b"0")


@pytest.mark.parametrize("name", ["", "a:b", "é\U0001f4e6", "\ud800", "1:2:3"])
@pytest.mark.parametrize("value", [b"", b"1:2:3", bytes(range(256))])
async def test_any_name_and_value_is_kept(redis_backend, name, value):
    revision = await redis_backend.put(name, name, value, ttl=60.0)
    entry = await redis_backend.get(name, name)
    assert (entry.value, entry.revision) == (value, revision)
    assert await redis_backend.entries(name) == {name: entry}
    assert await redis_backend.delete(name, name, expected=revision)
    assert not await redis_backend.entries(name)


async def test_expired_entries_are_deleted_in_bounded_steps(redis_backend, redis_client, names):
    for n in range(100):
        await redis_backend.put("b", f"n{n}", b"x", ttl=60.0)
    await redis_client.zadd(names.expiry("b"), {f"n{n}": 1 for n in range(100)})
    await redis_backend.put("b", "new", b"x")
    assert await redis_client.hlen(names.bucket("b")) == 100 - 20 + 1
    for n in range(10):
        await redis_backend.put("b", f"m{n}", b"x")
    assert await redis_client.hlen(names.bucket("b")) == 11
    assert not await redis_client.exists(names.expiry("b"))


async def test_a_put_without_ttl_ends_the_expiry_of_an_earlier_one(redis_backend, redis_client, names):
    await redis_backend.put("b", "n", b"1", ttl=60.0)
    await redis_backend.put("b", "n", b"2")
    assert not await redis_client.exists(names.expiry("b"))
    assert (await redis_backend.get("b", "n")).value == b"2"


async def test_the_cost_of_a_put_does_not_grow_with_the_bucket(redis_backend, redis_client, names):
    """It is measured in the server's own time for the script, so other load does not count."""

    async def cost():
        await redis_client.config_resetstat()
        for n in range(200):
            await redis_backend.put("b", f"n{n}", b"x" * 200, ttl=60.0)
        return (await redis_client.info("commandstats"))["cmdstat_evalsha"]["usec_per_call"]

    await cost()
    few = min([await cost() for _ in range(3)])
    value = b"1:99999999999999:" + b"x" * 200
    await redis_client.hset(names.bucket("b"), mapping={f"m{n}": value for n in range(10_000)})
    await redis_client.zadd(names.expiry("b"), {f"m{n}": 99999999999999 for n in range(10_000)})
    many = min([await cost() for _ in range(3)])
    assert many < 3 * few
