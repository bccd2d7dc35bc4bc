"""What an exclusive handle on Redis does when a renewal is refused, or comes while a failure is stored."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis.names import group_name
from abe_router.conformance.harness import GROUP, KEY, take
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message


async def test_leases_are_not_extended_when_the_server_refuses_to_renew_the_ownership(
    redis_backend, redis_client
):
    handle = await redis_backend.subscribe_exclusive(KEY, GROUP)
    await redis_backend.append([new_message(KEY, b"1")])
    held = await take(handle, 1)
    await redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BackendUnavailable, match="OOM"):
            await handle.extend(held)
    finally:
        await redis_client.config_set("maxmemory", 0)
    assert not await handle.extend(held)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_extension_beside_a_failure_lets_nothing_be_delivered_again(redis_backend, turns):
    handle = await redis_backend.subscribe_exclusive(KEY, GROUP)
    await redis_backend.append([new_message(KEY, b"1")])
    held = await take(handle, 1)
    postponing = asyncio.create_task(handle.postpone([(held[0], 30.0)]))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not await handle.extend(held)
    assert all(await postponing)
    await redis_backend.append([new_message(KEY, b"2")])
    fetching = asyncio.create_task(handle.fetch(10, 5.0))
    await asyncio.sleep(0)
    handle.interrupt()  # what the server hands out meanwhile is given up, and handed out again
    assert not await fetching
    assert [each.message.body for each in await handle.fetch(10, 5.0)] == [b"2"]


async def test_extension_beside_a_failure_includes_an_entry_of_the_same_id_in_another_stream(
    redis_backend, redis_client, prefix
):
    for key in ("orders.a", "orders.b"):
        await redis_client.xadd(f"{prefix}{key}", {"data": "1"}, id="1-1")
    handle = await redis_backend.subscribe_exclusive("orders.*", GROUP)
    failed, running = sorted(await take(handle, 2), key=lambda each: each.message.key)
    await asyncio.sleep(0.1)
    postponing = asyncio.create_task(handle.postpone([(failed, 30.0)]))
    for _ in range(2):
        await asyncio.sleep(0)
    assert not await handle.extend([failed, running])
    assert all(await postponing)
    (entry,) = await redis_client.xpending_range(
        f"{prefix}orders.b", group_name("orders.*", GROUP), "-", "+", 1
    )
    assert entry["time_since_delivered"] < 100
