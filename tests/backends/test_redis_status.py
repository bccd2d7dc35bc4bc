"""The age of the oldest message that is ready, on Redis."""

from __future__ import annotations

import os

import pytest

from abe_router.backend import ACKED, RELEASED
from abe_router.messages.message import new_message

from .deliveries import ack, take

KEY, GROUP = "orders.created", "billing"
#: Messages of the backlog; ABE_ROUTER_LONGER asks for a million.
MANY = 1_000_000 if os.environ.get("ABE_ROUTER_LONGER") else 20_000


async def oldest(backend):
    (status,) = await backend.status()
    return status.oldest_at


def accepted(entry_id):
    return int(entry_id.split(b"-")[0]) / 1000


async def test_it_is_the_first_entry_that_the_group_was_not_given(redis_backend, redis_client, prefix):
    handle = await redis_backend.subscribe(KEY, GROUP)
    assert await oldest(redis_backend) is None
    ids = [await redis_client.xadd(prefix + KEY, {"data": "1"}, id=f"{n}000-0") for n in (5, 6, 7)]
    assert await oldest(redis_backend) == accepted(ids[0])
    held = await take(handle, 2)
    assert await oldest(redis_backend) == accepted(ids[2])
    await handle.close()
    await ack(handle, held[1:])
    assert not await handle.settle([(held[0], RELEASED)])
    assert await oldest(redis_backend) == accepted(ids[0])


async def test_over_several_streams_it_is_the_oldest_of_all(redis_backend, redis_client, prefix):
    await redis_backend._node.registry.add_keys(["orders.a", "orders.b"])
    for key, millis in (("orders.a", 9000), ("orders.b", 8000)):
        await redis_client.xadd(prefix + key, {"data": "1"}, id=f"{millis}-0")
    await redis_backend.subscribe("orders.*", GROUP)
    assert await oldest(redis_backend) == 8.0


async def test_a_deleted_message_does_not_count(redis_backend, redis_client, prefix):
    await redis_backend.subscribe(KEY, GROUP)
    first, second = [await redis_client.xadd(prefix + KEY, {"data": "1"}, id=f"{n}000-0") for n in (5, 6)]
    await redis_client.xdel(prefix + KEY, first)
    assert await oldest(redis_backend) == accepted(second)


@pytest.mark.timeout(600)
async def test_its_cost_does_not_grow_with_the_backlog(redis_backend, redis_client):
    """It is measured in the server's own time for the script, so other load does not count."""

    async def cost():
        await redis_client.config_resetstat()
        for _ in range(100):
            assert await oldest(redis_backend)
        return (await redis_client.info("commandstats"))["cmdstat_evalsha"]["usec_per_call"]

    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_backend.append([new_message(KEY, b"1")] * 10)
    await handle.settle([(delivery, ACKED) for delivery in await take(handle, 5)])
    await cost()
    few = min([await cost() for _ in range(3)])
    for _ in range(MANY // 1000):
        await redis_backend.append([new_message(KEY, b'{"total": 3}') for _ in range(1000)])
    many = min([await cost() for _ in range(3)])
    print(f"{few} us with 5 messages, {many} us with {MANY:,}")
    assert many < 3 * few
