"""Peeking on Redis: a cursor misses no message, shows none twice, and nothing is changed."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends.redis.peek import _advanced, _Cursor
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import take

KEY, GROUP = "orders.created", "billing"


def shown(peeked):
    return [(each.message.body, each.state, each.deliveries) for each in peeked]


async def append(backend, *numbers, key=KEY):
    await backend.append([new_message(key, b"%d" % n) for n in numbers])


async def writes(client):
    return (await client.info("persistence"))["rdb_changes_since_last_save"]


async def test_a_group_shows_what_is_not_settled_in_the_order_of_the_stream(redis_backend, redis_client):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await append(redis_backend, *range(6))
    held = await take(handle, 5)
    outcomes = [ACKED, RELEASED, Delayed(60.0), ACKED]
    assert not await handle.settle(list(zip(held[:4], outcomes, strict=True)))
    # The released message comes again, and counts as delivered once.
    while not [p for p in await redis_backend.peek(KEY, GROUP) if p.state == "ready"]:
        await asyncio.sleep(0)
    before = await writes(redis_client)
    found = await redis_backend.peek(KEY, GROUP)
    assert await writes(redis_client) == before
    assert shown(found) == [
        (b"1", "ready", 0),
        (b"2", "delayed", 1),
        (b"4", "in_flight", 1),
        (b"5", "ready", 0),
    ]
    pages = [await redis_backend.peek(KEY, GROUP, limit=1, after=each.cursor) for each in found]
    assert [shown(page) for page in pages] == [*([shown([each]) for each in found[1:]]), []]


async def test_messages_of_an_exclusive_handle_that_wait_are_delayed(redis_backend):
    handle = await redis_backend.subscribe_exclusive(KEY, GROUP)
    await append(redis_backend, 0, 1)
    held = await take(handle, 2)
    assert await handle.postpone([(held[0], 60.0)])
    assert shown(await redis_backend.peek(KEY, GROUP)) == [(b"0", "delayed", 2), (b"1", "in_flight", 1)]


async def test_a_replay_is_shown_to_its_own_group_only(redis_backend, redis_client, prefix):
    await redis_backend.subscribe(KEY, GROUP)
    await redis_backend.subscribe(KEY, "audit")
    await redis_client.xadd(prefix + KEY, {"data": "1", "only": GROUP})
    assert len(await redis_backend.peek(KEY, GROUP)) == 1
    assert not await redis_backend.peek(KEY, "audit")
    assert not await redis_backend.peek(KEY, None)


async def test_a_stream_that_has_no_group_yet_shows_what_it_would_get(redis_backend, redis_client, prefix):
    await redis_backend.subscribe("orders.*", GROUP)
    await redis_backend._node.registry.add_keys(["orders.late"])
    await redis_client.xadd(f"{prefix}orders.late", {"data": "1"})
    assert shown(await redis_backend.peek("orders.*", GROUP)) == [(b"1", "ready", 0)]


async def test_a_key_of_another_type_hides_no_message(redis_backend, redis_client, prefix):
    await append(redis_backend, 1)
    await redis_client.set(f"{prefix}orders.bad", "no stream")
    await redis_backend._node.registry.add_keys(["orders.bad"])
    assert shown(await redis_backend.peek("orders.*", None)) == [(b"1", "retained", 0)]


@pytest.mark.parametrize("group", [None, GROUP])
async def test_a_live_tail_of_many_streams_misses_nothing_and_repeats_nothing(redis_backend, group):
    keys = [f"orders.n{n}" for n in range(7)]
    await redis_backend.subscribe("orders.*", GROUP)

    async def publish(key):
        for n in range(150):
            await append(redis_backend, n, key=key)

    publishing = asyncio.gather(*map(publish, keys))
    came, cursor = [], ""
    async with asyncio.timeout(HANG):
        while len(came) < 150 * len(keys):
            found = await redis_backend.peek("orders.*", group, limit=40, after=cursor)
            came += [(each.message.key, int(each.message.body)) for each in found]
            cursor = found[-1].cursor if found else cursor
    await publishing
    for key in keys:
        assert [n for k, n in came if k == key] == list(range(150))
    assert not await redis_backend.peek("orders.*", group, after=cursor)


def test_an_entry_of_the_current_millisecond_does_not_hide_a_smaller_id_elsewhere():
    """A bug loses a message that another stream accepts in the same millisecond."""
    cursor = _advanced(_Cursor(), "b", "1000-5", now=1000)
    assert cursor.position("b") == "1000-5"
    assert cursor.position("a") == cursor.position("c") == f"999-{2**64 - 1}"
    later = _advanced(cursor, "a", "1000-0", now=1001)
    assert [later.position(key) for key in "abc"] == ["1000-0", "1000-5", f"999-{2**64 - 1}"]
    assert _advanced(later, "a", "1000-6", now=1001).beyond == {}


def test_streams_with_one_id_are_told_apart_by_their_keys():
    cursor = _advanced(_Cursor(), "b", "1000-0", now=2000)
    assert cursor.position("a") == cursor.position("b") == "1000-0"
    assert cursor.position("c") == f"999-{2**64 - 1}"


@pytest.mark.parametrize("cursor", ["x", '["1","b",{}]', '["1-1","b",{"a":"x"}]', "\ud800"])
async def test_what_is_no_cursor_is_refused(redis_backend, cursor):
    with pytest.raises(ValueError, match="not a cursor"):
        await redis_backend.peek(KEY, None, after=cursor)
