"""One answer of Redis brings a limited number of bytes, whatever the entries are."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest

from abe_router.backend import ACKED
from abe_router.backends.redis import protocol
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.testing.redis_server import RedisServer
from tests.limits import HANG

from .deliveries import ack, as_dead, take

KEY, OTHER, GROUP = "orders.created", "orders.paid", "billing"
MIB = 1024 * 1024
COUNT = 20
EACH = ["subscribe", "subscribe_exclusive"]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    """Yield a server of its own that stores nothing: to sync so much would stop one for other tests too."""
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def most_bytes(monkeypatch):
    """Let a connection end with an answer that is little larger than one that is full."""
    monkeypatch.setattr(protocol, "MOST_BYTES", 12 * MIB)


def body(number):
    return b'"%d%s"' % (number, b"x" * (MIB - 100))


def numbers(messages):
    return [int(message.body[1:].split(b"x", 1)[0]) for message in messages]


async def append(backend, count=COUNT, key=KEY):
    for number in range(count):
        await backend.append([new_message(key, body(number))])


async def handled(handle, count):
    """Return the numbers of so many messages in the order in which they came first, all acked."""
    found: dict[int, None] = {}
    async with asyncio.timeout(HANG):
        while len(found) < count:
            with suppress(BackendUnavailable):
                came = await handle.fetch(100, 0.2)
                found.update(dict.fromkeys(numbers(each.message for each in came)))
                await ack(handle, came)
    return list(found)


@pytest.mark.parametrize("subscribe", EACH)
async def test_a_read_that_brings_too_much_is_recovered_in_pieces(
    redis_backend, redis_client, prefix, subscribe
):
    handle = await getattr(redis_backend, subscribe)(KEY, GROUP)
    await append(redis_backend)
    assert await handled(handle, COUNT) == list(range(COUNT))
    assert (await redis_client.xpending(f"{prefix}{KEY}", GROUP))["pending"] == 0


@pytest.mark.parametrize("subscribe", EACH)
async def test_entries_of_another_consumer_are_taken_over_in_pieces(
    redis_backend, redis_client, prefix, subscribe, caplog
):
    await redis_backend.subscribe(KEY, GROUP)
    await append(redis_backend)
    await redis_client.xreadgroup(GROUP, "other/lease=1", {f"{prefix}{KEY}": ">"})
    handle = await getattr(redis_backend, subscribe)(KEY, GROUP)
    assert await handled(handle, COUNT) == list(range(COUNT))
    assert "an answer is larger" not in caplog.text


@pytest.mark.parametrize("waits", [False, True])
async def test_a_plain_read_leaves_an_entry_over_the_limit_on_the_server(
    redis_backend, redis_client, prefix, waits, monkeypatch, caplog
):
    """The connection ends with the first bytes. Its neighbours come once, in order, with their counts."""
    monkeypatch.setattr(protocol, "MOST_BYTES", 128 * MIB)
    handle = await redis_backend.subscribe(KEY, GROUP)
    found = []

    async def fetch():
        async with asyncio.timeout(HANG):
            while len(found) < 6:
                with suppress(BackendUnavailable):
                    found.extend(await handle.fetch(10, 1.0))

    before = await redis_client.info("stats")
    fetching = asyncio.create_task(fetch()) if waits else None
    async with asyncio.timeout(HANG):
        while waits and not (await redis_client.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0)
    large = {"data": "1" * 64 * MIB, "id": "large"}
    for fields in ({"data": "0"}, {"data": "1"}, large, *({"data": str(number)} for number in range(2, 6))):
        await redis_client.xadd(f"{prefix}{KEY}", fields)
    await (fetching or fetch())
    after = await redis_client.info("stats")
    assert [(each.message.body, each.deliveries, each.message.attempt) for each in found] == [
        (b"%d" % number, 1, 1) for number in range(6)
    ]
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < 40 * MIB
    assert not await handle.settle([(each, ACKED) for each in found])
    assert not await handle.fetch(10, 0.0)
    (dead,) = await redis_backend.dead_letters(KEY, GROUP)
    assert (dead.message.id, dead.deliveries, dead.attempts) == ("large", 1, 0)
    assert (await redis_client.xpending(f"{prefix}{KEY}", GROUP))["pending"] == 0
    assert caplog.text.count("an entry is larger than 2 MiB") <= 1  # else it was the connection that waits


@pytest.mark.parametrize("subscribe", EACH)
async def test_a_large_entry_for_another_group_is_not_sent(redis_backend, redis_client, prefix, subscribe):
    await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "1" * 16 * MIB, "only": "audit"})
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "2"})
    await redis_client.xreadgroup(GROUP, "other/lease=1", {f"{prefix}{KEY}": ">"})
    before = await redis_client.info("stats")
    handle = await getattr(redis_backend, subscribe)(KEY, GROUP)
    (found,) = await take(handle, 1)
    await ack(handle, [found])
    after = await redis_client.info("stats")
    assert found.message.body == b"2"
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < MIB
    assert not await redis_backend.dead_letters(KEY, GROUP)
    assert (await redis_client.xpending(f"{prefix}{KEY}", GROUP))["pending"] == 0


async def test_an_exclusive_read_brings_no_entry_over_the_limit(redis_backend, redis_client, prefix):
    handle = await redis_backend.subscribe_exclusive(KEY, GROUP)
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "1" * 5 * MIB, "id": "large"})
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "2"})
    before = await redis_client.info("stats")
    found = await handle.fetch(10, 0.0)
    after = await redis_client.info("stats")
    assert [each.message.body for each in found] == [b"2"]
    assert after["total_net_output_bytes"] - before["total_net_output_bytes"] < MIB
    (dead,) = await redis_backend.dead_letters(KEY, GROUP)
    assert (dead.message.id, dead.deliveries, dead.attempts) == ("large", 1, 0)


async def test_an_exclusive_read_keeps_the_order_and_the_counts_of_what_it_puts_back(redis_backend):
    handle = await redis_backend.subscribe_exclusive(KEY, GROUP)
    await append(redis_backend)
    found = []
    while len(found) < COUNT:
        came = await handle.fetch(100, 0.0)
        assert 0 < len(came) <= 9
        found += came
        await ack(handle, came)
    assert numbers(each.message for each in found) == list(range(COUNT))
    assert {each.deliveries for each in found} == {1}


async def test_dead_letters_are_listed_in_pieces_and_in_order(redis_backend):
    for key in (KEY, OTHER):
        handle = await redis_backend.subscribe("orders.*", GROUP)
        await append(redis_backend, 6, key)
        for each in await take(handle, 6):
            await handle.settle([(each, as_dead(each))])
        await handle.close()
    found = []
    while page := await redis_backend.dead_letters(
        "orders.*", GROUP, limit=100, after=found[-1].id if found else ""
    ):
        assert len(page) < 12
        found += page
    assert [each.message.key for each in found] == [KEY] * 6 + [OTHER] * 6
    assert sorted(numbers(each.message for each in found[:6])) == list(range(6))


@pytest.mark.parametrize("group", [GROUP, None])
async def test_a_peek_looks_at_large_messages_in_pieces(redis_backend, redis_client, prefix, group):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await append(redis_backend)
    await take(handle, 3)
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "1" * 13 * MIB, "id": "large"})
    found = await redis_backend.peek(KEY, group, limit=100)
    assert numbers(each.message for each in found[:-1]) == list(range(COUNT))
    assert (found[-1].message.id, found[-1].message.body) == ("large", b"")


async def test_doctor_looks_at_a_stream_that_begins_with_a_large_entry(redis_backend, redis_client, prefix):
    await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(f"{prefix}{KEY}", {"data": "1" * 13 * MIB})
    codes = {each.code for each in await redis_backend.check_health()}
    assert "D303" in codes
    assert not codes & {"D301", "D302"}
