"""The messages of many callers go in one batch, and each caller gets its own result."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from abe_router.backends.redis.appender import LARGE
from abe_router.backends.redis.protocol import RedisProtocol
from abe_router.backends.redis.scripts import APPEND
from abe_router.errors import BackendError, PayloadUnencodable
from abe_router.messages.message import Message, new_message
from tests.limits import HANG

from .deliveries import bodies, take

KEY, GROUP = "orders.created", "billing"
#: `new_message` makes none of these.
NO_TEXT = pytest.mark.parametrize(
    "no_text",
    [Message("\udcff", KEY, b"1"), Message("a", KEY, b"1", {"trace": "\ud800"})],
    ids=["id", "header"],
)


@NO_TEXT
async def test_text_that_is_not_unicode_fails_only_its_own_caller(redis_backend, no_text):
    bad = redis_backend.append([no_text])
    good = redis_backend.append([new_message(KEY, b"2", id="\u00fc", headers={"trace": "\U0001f4e6"})])
    async with asyncio.timeout(HANG):  # the server syncs what it accepts
        refused, kept = await asyncio.gather(bad, good, return_exceptions=True)
    assert isinstance(refused, PayloadUnencodable)
    assert kept is None
    assert bodies(await take(await redis_backend.subscribe(KEY, GROUP), 1)) == [b"2"]


@NO_TEXT
async def test_no_message_of_a_call_is_kept_if_one_is_not_unicode(
    redis_backend, redis_client, prefix, no_text
):
    async with asyncio.timeout(HANG):  # the server syncs what it accepts
        with pytest.raises(PayloadUnencodable):
            await redis_backend.append([new_message(KEY, b"2"), no_text])
    assert not await redis_client.exists(prefix + KEY)


async def test_an_unexpected_error_fails_all_callers_of_a_batch(redis_backend):
    batch = [
        redis_backend.append([message]) for message in (new_message(KEY, b"1"), Message("id", KEY, None))
    ]
    async with asyncio.timeout(HANG):  # the server syncs what it accepts
        results = await asyncio.gather(*batch, return_exceptions=True)
        assert [isinstance(answer, BackendError) for answer in results] == [True, True]
        await redis_backend.append([new_message(KEY, b"2")])
    assert bodies(await take(await redis_backend.subscribe(KEY, GROUP), 1)) == [b"2"]


async def test_messages_of_one_batch_keep_ids_bodies_times_and_headers(redis_backend):
    sent = [
        Message("a", KEY, b"", {}, 1764172627.1234567),
        Message("\u00fc", KEY, b"\xff\x00 is not UTF-8", {"trace": "\U0001f4e6"}, 5.0),
        Message("3", KEY, b"1" * 70_000, {}, 0.1),
    ]
    await asyncio.gather(*(redis_backend.append([each]) for each in sent))
    found = await take(await redis_backend.subscribe(KEY, GROUP), 3)
    assert [structs.replace(each.message, attempt=0) for each in found] == sent


async def test_the_server_receives_as_many_arguments_for_a_batch_as_for_one_message(
    redis_backend, monkeypatch
):
    calls = []
    await redis_backend.open()
    connection = redis_backend._node.connection
    run = connection.run
    monkeypatch.setattr(connection, "run", lambda *call: calls.append(call) or run(*call))
    await asyncio.gather(*(redis_backend.append([new_message(KEY, b"1")]) for _ in range(50)))
    assert [len(args) for script, _, args in calls if script is APPEND] == [2]


SMALL_AND_LARGE = [new_message(KEY, b"%d" % n * (LARGE if n % 3 else 1), id=f"m{n}") for n in range(9)]


async def test_small_and_large_messages_of_many_callers_keep_their_order(redis_backend):
    sent = [*SMALL_AND_LARGE, new_message(KEY, b"x" * LARGE, headers={"trace": "\U0001f4e6"})]
    await asyncio.gather(*(redis_backend.append([each]) for each in sent))
    found = await take(await redis_backend.subscribe(KEY, GROUP), len(sent))
    assert [structs.replace(each.message, attempt=0) for each in found] == sent


async def test_small_and_large_messages_of_one_call_keep_their_order_and_windows(redis_backend):
    await redis_backend.append(SMALL_AND_LARGE[:2])
    assert await redis_backend.append_once([(each, 60.0) for each in SMALL_AND_LARGE[2:]]) == []
    again = await redis_backend.append_once([(each, 60.0) for each in SMALL_AND_LARGE])
    assert again == SMALL_AND_LARGE[2:]
    found = await take(await redis_backend.subscribe(KEY, GROUP), 11)
    assert bodies(found) == bodies_of([*SMALL_AND_LARGE, *SMALL_AND_LARGE[:2]])


async def test_large_body_is_an_argument_of_its_own(redis_backend, monkeypatch):
    await redis_backend.open()
    connection, sent = redis_backend._node.connection, []
    run, send = connection.run, connection.send
    monkeypatch.setattr(connection, "run", lambda *call: sent.append(call[2]) or run(*call))
    monkeypatch.setattr(connection, "send", lambda *call: sent.append(call) or send(*call))
    message = new_message(KEY, b"x" * LARGE)
    await redis_backend.append([message])
    await redis_backend.append([message, message])
    assert [message.body in call for call in sent if len(str(call)) > LARGE] == [True, True]


@pytest.mark.parametrize(("size", "writes"), [(100, 1), (10_000, 6)])
async def test_small_commands_of_one_turn_leave_in_one_write_and_large_ones_in_a_few(size, writes):
    """Large ones joined in one write would take fresh memory each time."""
    transport, protocol = Transport(), RedisProtocol(1.0, lambda _: None)
    protocol.connection_made(transport)
    for _ in range(40):
        protocol.send("XADD", KEY, "*", "data", b"x" * size)
    await asyncio.sleep(0)
    assert len(transport.written) == writes
    assert b"".join(transport.written).count(b"XADD") == 40
    protocol.connection_lost(None)


class Transport:
    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return False


async def test_refusal_of_the_server_fails_the_caller_of_a_large_message(redis_backend, redis_client, prefix):
    await redis_client.set(prefix + KEY, "no stream")
    refused, kept = await asyncio.gather(
        *(redis_backend.append([new_message(key, b"x" * LARGE)]) for key in (KEY, "other")),
        return_exceptions=True,
    )
    assert isinstance(refused, BackendError)
    assert kept is None


def bodies_of(messages):
    return [message.body for message in messages]
