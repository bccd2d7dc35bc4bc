"""The reader shares a fetch between streams, and recovers what lost replies had brought."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backends.redis.names import Names
from abe_router.backends.redis.scripts import RECOVER
from abe_router.backends.redis.stream_state import PendingWork, StreamState, shares
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import bodies, take

KEYS, GROUP = ["orders.created", "orders.paid"], "billing"


async def lose_the_replies(backend, handle, client, prefix):
    """Let the server deliver one message of each key in replies that never come."""
    await backend.append([new_message(key, key.encode()) for key in KEYS])
    protocol = backend._node.connection._protocol
    protocol._transport.pause_reading()
    fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
    async with asyncio.timeout(HANG):
        for key in KEYS:
            while not await client.xpending_range(prefix + key, f"{handle.pattern}/{GROUP}", "-", "+", 10):
                await asyncio.sleep(0.001)
    protocol.abort("cut by the test")
    with pytest.raises(BackendUnavailable):
        await fetching


async def test_recovery_is_complete_although_the_connection_breaks_again_meanwhile(
    redis_backend, redis_client, prefix, monkeypatch
):
    handle = await redis_backend.subscribe("orders.*", GROUP)
    redis_backend._node.discovery.record(KEYS)
    assert not await handle.fetch(10, 0)
    await lose_the_replies(redis_backend, handle, redis_client, prefix)
    connection = redis_backend._node.connection
    run = connection.run

    def break_after_the_first_reply(script, keys, args=()):
        answer = run(script, keys, args)
        if script is RECOVER:
            monkeypatch.setattr(connection, "run", run)
            answer.add_done_callback(lambda _: connection._protocol.abort("cut by the test again"))
        return answer

    monkeypatch.setattr(connection, "run", break_after_the_first_reply)
    came = await take(handle, len(KEYS))
    assert sorted(bodies(came)) == [key.encode() for key in KEYS]
    assert [delivery.deliveries for delivery in came] == [1, 1]


def streams(count, likely=1):
    names, pending = Names(""), PendingWork(lambda: None)
    found = [StreamState(names, f"k{n}", GROUP, "me", 30.0, "0-0", pending) for n in range(count)]
    for stream in found:
        stream.likely = likely
    return found


def test_few_streams_share_the_whole_limit():
    assert [share for _, share in shares(streams(5), 512)] == [103, 103, 102, 102, 102]


def test_streams_with_many_entries_get_a_share_that_is_worth_a_read():
    chosen = shares(streams(1000, likely=100), 500)
    assert [share for _, share in chosen] == [100] * 5


def test_a_stream_is_asked_for_one_entry_more_than_the_last_reply_had():
    first, *others = streams(1000, likely=0)
    first.replied(3, 100)
    assert [share for _, share in shares([first], 500)] == [500]
    assert [share for _, share in shares([first, *others], 500)] == [4] * 125
    first.replied(4, 4)
    assert [share for _, share in shares([first, *others], 500)] == [100] * 5
    first.replied(0, 100)
    assert [share for _, share in shares([first, *others], 500)] == [1] * 500


def test_after_a_stream_had_more_than_was_asked_for_the_others_are_asked_for_more_too():
    first, *others = streams(50, likely=2)
    assert [share for _, share in shares([first, *others], 96)] == [2] * 48
    first.replied(2, 2)
    assert [share for _, share in shares(others, 500)] == [100] * 5
    first.replied(8, 100)
    assert [share for _, share in shares(others, 432)] == [9] * 48


def test_what_is_left_of_the_limit_is_no_share():
    """It would be filled, and look as if the stream had many entries."""
    assert [share for _, share in shares(streams(100, likely=6), 500)] == [6] * 83


def test_streams_with_few_entries_all_get_a_share():
    assert [share for _, share in shares(streams(1000), 500)] == [1] * 500


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_shares_never_exceed_the_limit(limit):
    mixed = [*streams(3, likely=100), *streams(50), *streams(50, likely=5)]
    chosen = shares(mixed, limit)
    assert sum(share for _, share in chosen) <= limit
    assert all(share for _, share in chosen)


@pytest.mark.parametrize(("count", "each"), [(50, 40), (400, 5), (1000, 1)])
async def test_a_backlog_under_many_keys_is_read_in_few_calls(redis_backend, redis_client, count, each):
    """Most keys take one read; those of the first fetch, and those cut off by the limit, take another."""
    keys = [f"orders.k{n}" for n in range(count)]
    await redis_backend.append([new_message(key, b"1") for key in keys for _ in range(each)])
    await redis_client.config_resetstat()
    handle = await redis_backend.subscribe("orders.*", GROUP)
    left, limit, fetches = each * count, 10, 0
    async with asyncio.timeout(HANG):
        while left:
            found = await handle.fetch(limit, 1.0)
            left, limit, fetches = left - len(found), 100, fetches + 1
    assert fetches <= each * count / 35
    stats = await redis_client.info("commandstats")
    assert stats["cmdstat_xreadgroup"]["calls"] <= 1.5 * count
    assert stats["cmdstat_xreadgroup"]["calls"] + stats["cmdstat_evalsha"]["calls"] <= 1.6 * count
