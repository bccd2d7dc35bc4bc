"""Values that other programs wrote where the Redis provider reads numbers and names."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress

import pytest

from abe_router.backend import ACKED, Delayed
from abe_router.backends.redis import protocol
from abe_router.backends.redis.entry import LATEST, read_count, read_time
from abe_router.consumer.disposition import Disposition, DispositionPolicy
from abe_router.consumer.filter import Filter
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_message
from abe_router.routing.handler import handler_from
from abe_router.routing.route import Route
from abe_router.text import format_time
from tests.limits import HANG

from .deliveries import ack, as_dead, take

KEY, GROUP = "orders.created", "billing"
ABSURD = ["nan", "inf", "-inf", "1e999", "1e300", "-1", "253402300800", "soon", "", b"\xff"]


@pytest.fixture
def stream(prefix):
    return f"{prefix}{KEY}"


@pytest.fixture
def dead(prefix):
    return f"abe-router:{{{prefix}{KEY}}}:dead:{GROUP}"


@pytest.mark.parametrize("at", ABSURD)
def test_a_time_beyond_the_calendar_is_none(at):
    assert read_time(at) == 0.0


def test_the_last_second_of_the_calendar_can_be_shown():
    assert read_time(str(LATEST)) == LATEST
    assert format_time(LATEST).startswith("9999-12-31")


@pytest.mark.parametrize("field", [b"", b"-1", b"1.5", b"nan", b"9" * 5000, "¹".encode()])
def test_what_is_no_count_is_none(field):
    assert read_count(field) is None


@pytest.mark.parametrize("fields", [{}, {"id": "x"}, {"headers": "[1]"}])
@pytest.mark.parametrize("at", ABSURD)
async def test_an_absurd_time_hides_no_dead_letter(redis_backend, redis_client, stream, at, fields):
    handle = await redis_backend.subscribe(KEY, GROUP)
    honest = new_message(KEY, b"0")
    await redis_backend.append([honest])
    await redis_client.xadd(stream, {"data": "1", "at": at, **fields})
    came = await take(handle, 2)
    assert not await handle.settle([(delivery, as_dead(delivery)) for delivery in came])
    first, second = await redis_backend.dead_letters(KEY, GROUP)
    assert first.message == came[0].message
    assert 0 < second.message.published_at <= LATEST
    assert await redis_backend.replay(KEY, GROUP, [second.id]) == 1
    (again,) = await take(handle, 1)
    assert 0 < again.message.published_at <= LATEST
    assert await redis_backend.purge(KEY, GROUP, [first.id]) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"x": "1"},
        {"dead_letter": "{}"},
        {"dead_letter": "no json", "data": "1", "id": "x", "at": "1", "headers": ""},
        {"dead_letter": b"\xff", "data": b"\xff", "id": b"\xff", "at": "nan"},
        {"dead_letter": "[" * 100_000, "data": "1"},
        {"dead_letter": '{"a":' * 100_000, "data": "1"},
        {"dead_letter": '{"route":1,"message":[],"reason":{"kind":2},"attempts":"x","deliveries":-1}'},
        {"dead_letter": '{"first_failed_at":1e300,"last_failed_at":null,"message":{"headers":{"a":1}}}'},
        {"dead_letter": "{}", **{f"f{n}": "" for n in range(5000)}},
    ],
)
async def test_a_damaged_dead_letter_hides_no_other_one(redis_backend, redis_client, dead, fields):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(dead, fields)
    honest = new_message(KEY, b"0", headers={"trace": "a"})
    await redis_backend.append([honest])
    (delivery,) = await take(handle, 1)
    assert not await handle.settle([(delivery, as_dead(delivery))])
    damaged, whole = await redis_backend.dead_letters(KEY, GROUP)
    assert whole.message == delivery.message
    assert whole.reason.message == "no stock"
    assert damaged.route
    assert damaged.reason.kind
    for seconds in (damaged.first_failed_at, damaged.last_failed_at, damaged.message.published_at):
        assert format_time(seconds)
    assert await redis_backend.replay(KEY, GROUP, [damaged.id]) == 1
    (again,) = await take(handle, 1)
    assert again.message.body == damaged.message.body
    assert await redis_backend.purge(KEY, GROUP, [whole.id]) == 1


@pytest.mark.parametrize("failures", [b"x", b"nan:nan", b"1e999:inf", b"9" * 5000 + b":1", b"3:" + b"9" * 20])
async def test_a_damaged_count_of_failures_delivers_the_message(
    redis_backend, redis_client, prefix, failures
):
    handle = await redis_backend.subscribe(KEY, GROUP, lease=0.2)
    await redis_backend.append([new_message(KEY, b"0")])
    (delivery,) = await take(handle, 1)
    assert not await handle.settle([(delivery, Delayed(0.1))])
    name = f"abe-router:{{{prefix}{KEY}}}:failures:{GROUP}"
    await redis_client.hset(name, delivery.receipt.decode(), failures)
    (again,) = await take(handle, 1)
    assert again.message.attempt >= 1
    assert format_time(again.failed_at or 0.0)
    assert not await handle.settle([(again, Delayed(0.1))])
    assert len(await take(handle, 1)) == 1


async def test_a_foreign_name_among_the_retries_holds_up_no_other(redis_backend, redis_client, prefix):
    handle = await redis_backend.subscribe(KEY, GROUP, lease=0.2)
    await redis_backend.append([new_message(KEY, b"0")])
    (delivery,) = await take(handle, 1)
    assert not await handle.settle([(delivery, Delayed(0.1))])
    name = f"abe-router:{{{prefix}{KEY}}}:delayed:{GROUP}"
    scores = {"no id": 0, "99999999999999999999999-1": 1, b"\xff": float("-inf"), "0-1": float("inf")}
    await redis_client.zadd(name, scores)
    assert [each.message.attempt for each in await take(handle, 1)] == [2]


async def test_foreign_names_in_the_registry_hide_no_subscription(redis_backend, redis_client, prefix):
    await redis_backend.subscribe(KEY, GROUP)
    await redis_backend.append([new_message(KEY, b"0")])
    base = f"abe-router:{{{prefix}}}"
    bad = {b"\xff/g": "1", "a/g": "soon", "b/g": "9" * 5000, "c/g": "-1", "no slash": "1"}
    await redis_client.hset(f"{base}:subscriptions", mapping=bad)
    await redis_client.sadd(f"{base}:keys", b"\xff")
    await redis_client.hset(
        f"{base}:retention", mapping={"x": "1", "1 #": "soon", f"{'9' * 400} #": "9" * 20}
    )
    assert [(s.pattern, s.ready) for s in await redis_backend.status()] == [(KEY, 1)]
    assert await redis_backend.trim({}) == 0
    assert await redis_backend.check_health(None)
    await redis_backend.subscribe("a", "g")
    assert [s.pattern for s in await redis_backend.status()] == ["a", KEY]


async def test_foreign_values_in_a_bucket_hide_no_entry(redis_backend, redis_client, prefix):
    await redis_backend.put("workers", "honest", b"1")
    name = f"abe-router:{{{prefix}}}:bucket:workers"
    await redis_client.hset(name, mapping={"bad": "x", b"\xff": "1:0:y", "inf": "nan:0:z"})
    assert (await redis_backend.entries("workers"))["honest"].value == b"1"
    assert await redis_backend.get("workers", "bad") is None


@pytest.mark.parametrize("state", ["soon", "nan", "inf", "-inf", "1e999"])
async def test_a_damaged_rate_grants_tokens_again(redis_backend, redis_client, prefix, state):
    await redis_client.set(f"abe-router:{{{prefix}}}:rate:r", state)
    granted = 0
    async with asyncio.timeout(HANG):
        while not granted:
            granted = (await redis_backend.take_tokens("r", 1000.0, 1)).granted
            await asyncio.sleep(0.01)


async def fill(redis_backend, redis_client, stream, entry_id, count):
    """Publish and settle `count` messages behind an entry with that id, which another program added."""
    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(stream, {"data": "1"}, id=entry_id)
    await redis_backend.append([new_message(KEY, b"0") for _ in range(count)])
    await ack(handle, await take(handle, count + 1))
    return handle


@pytest.mark.parametrize("entry_id", ["9999999999999-1", "9999999999999999-7", f"{2**64 - 2}-{2**64 - 1}"])
@pytest.mark.parametrize("retain", [0.0, 1.0])
async def test_an_id_from_the_future_holds_up_no_trim(
    redis_backend, redis_client, prefix, stream, entry_id, retain
):
    handle = await fill(redis_backend, redis_client, stream, entry_id, 1000)
    if retain:
        assert await redis_backend.trim({KEY: 60.0}) == 1  # it has no time of its own; the others are young
        await redis_client.delete(f"abe-router:{{{prefix}}}:retention")  # it would count for 60 s more
        await asyncio.sleep(retain + 0.1)
    young = [new_message(KEY, b"%d" % n) for n in range(20)]
    await redis_backend.append(young)
    await ack(handle, await take(handle, 15))
    while await redis_backend.trim({KEY: retain}):
        pass
    left = await redis_client.xlen(stream)
    assert left == (20 if retain else 5)
    await ack(handle, await take(handle, 5))
    await asyncio.sleep(retain)
    assert await redis_backend.trim({}) == left


async def test_a_clock_that_was_ahead_holds_up_no_trim(redis_backend, redis_client, stream):
    """The ids of an hour, years ahead, and then those that the server counts on from the last one."""
    handle = await redis_backend.subscribe(KEY, GROUP)
    first = 2_500_000_000_000
    for n in range(300):
        at = str(1000 + n)
        await redis_client.xadd(stream, {"data": "1", "id": "x", "at": at}, id=f"{first + n * 10}-*")
    await redis_backend.append([new_message(KEY, b"0") for _ in range(50)])
    await ack(handle, await take(handle, 350))
    assert await redis_backend.trim({KEY: 60.0}) >= 200
    while await redis_backend.trim({KEY: 60.0}):
        pass
    assert await redis_client.xlen(stream) == 50


def envelope(payload, headers):
    """Return a message as FastStream 0.7 writes it: `BinaryMessageFormatV1`."""
    packed = b"".join(
        struct.pack(">H", len(text.encode())) + text.encode() for pair in headers.items() for text in pair
    )
    start = 8 + 2 + 8
    head = b"\x89BIN\r\n\x1a\n" + struct.pack(">HII", 1, start, start + 2 + len(packed))
    return head + struct.pack(">H", len(headers)) + packed + payload


@pytest.mark.parametrize(
    "field",
    [
        envelope(b'{"total":3}', {"correlation_id": "c", "content-type": "application/json"}),
        json.dumps(
            {"data": '{"total":3}', "headers": {"correlation_id": "c", "content-type": "application/json"}}
        ),
    ],
)
async def test_an_envelope_of_faststream_is_a_message(redis_backend, redis_client, stream, field):
    handle = await redis_backend.subscribe(KEY, GROUP)
    entry_id = await redis_client.xadd(stream, {"__data__": field})
    (delivery,) = await take(handle, 1)
    assert delivery.message.payload == {"total": 3}
    assert delivery.message.headers == {"correlation_id": "c", "content-type": "application/json"}
    assert delivery.message.id == entry_id.decode()
    assert not delivery.fault
    assert not await handle.settle([(delivery, as_dead(delivery))])
    (dead_letter,) = await redis_backend.dead_letters(KEY, GROUP)
    assert dead_letter.message == delivery.message
    assert await redis_backend.replay(KEY, GROUP, [dead_letter.id]) == 1
    assert [again.message for again in await take(handle, 1)] == [delivery.message]


@pytest.mark.parametrize("cut", [7, 9, 17, 19, 25, 40])
async def test_a_damaged_envelope_has_a_fault(redis_backend, redis_client, stream, cut):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(stream, {"__data__": envelope(b"1", {"correlation_id": "c" * 40})[:cut]})
    (delivery,) = await take(handle, 1)
    assert (delivery.message.body, delivery.fault) == (b"", "no field `data`, but 1 other field")


async def test_an_entry_without_data_keeps_its_fields(redis_backend, redis_client, stream, dead):
    fields = {b"total": b"17", b"raw": b"\xff\x00", b"id": b"o-1"}
    await redis_client.xadd(stream, fields)
    handle = await redis_backend.subscribe(KEY, GROUP)
    (delivery,) = await take(handle, 1)
    assert delivery.fault == "no field `data`, but 2 other fields"
    assert not await handle.settle([(delivery, as_dead(delivery))])
    (dead_letter,) = await redis_backend.dead_letters(KEY, GROUP)
    assert dead_letter.message.headers == {"total": "17", "raw": "\\xff\x00"}
    assert dead_letter.message.id == "o-1"
    ((_, kept),) = await redis_client.xrange(dead)
    assert fields.items() <= kept.items()
    assert await redis_backend.replay(KEY, GROUP, [dead_letter.id]) == 1
    (again,) = await take(handle, 1)
    assert again.fault == "no field `data`, but 2 other fields"
    ((_, kept),) = await redis_client.xrevrange(stream, count=1)
    at = str(delivery.message.published_at).encode()
    assert kept.pop(b"former").startswith(b"1:")
    assert kept == {**fields, b"at": at, b"only": GROUP.encode()}


async def test_headers_that_faststream_garbles_leave_the_payload(redis_backend, redis_client, stream):
    """It writes the length of a text in characters: this is what 0.7.8 wrote for the header `ä`."""
    field = envelope(b"1", {"correlation_id": "c", "trace": "xx"}).replace(b"\x00\x02xx", b"\x00\x01\xc3\xa4")
    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(stream, {"__data__": field})
    (delivery,) = await take(handle, 1)
    assert (delivery.message.payload, delivery.message.headers) == (1, {"correlation_id": "c"})


async def test_the_reason_of_a_dead_letter_counts_the_fields_of_an_entry(redis_backend, redis_client, stream):
    handle = await redis_backend.subscribe(KEY, GROUP)
    await redis_client.xadd(stream, {"total": "17"})
    (delivery,) = await take(handle, 1)
    route = Route(key=KEY, group=GROUP, handler=handler_from(lambda payload: None))
    policy = DispositionPolicy(route, revision="", report_handled=False)
    disposition = Filter(route, policy).check(delivery)
    assert isinstance(disposition, Disposition)
    await handle.settle([(delivery, disposition.outcome)])
    (dead_letter,) = await redis_backend.dead_letters(KEY, GROUP)
    assert dead_letter.reason.kind == "malformed"
    assert dead_letter.reason.message == "no field `data`, but 1 other field"


async def test_no_other_program_is_blamed_for_acks_whose_answers_were_lost(
    redis_backend, monkeypatch, caplog
):
    """Entries of two streams that one call appended have the same ids."""
    handle = await redis_backend.subscribe("orders.*", GROUP)
    await redis_backend.append([new_message(key, b"1") for key in (KEY, "orders.paid")])
    found = await take(handle, 2)
    assert len({each.receipt for each in found}) == 1
    connection = redis_backend._node.connection
    run = connection.run

    def lose_answer(*call):
        run(*call)
        lost = asyncio.get_running_loop().create_future()
        lost.set_exception(BackendUnavailable("the answer was lost"))
        return lost

    with monkeypatch.context() as patched:
        patched.setattr(connection, "run", lose_answer)
        with pytest.raises(BackendUnavailable):
            await ack(handle, found)
    assert list(await handle.settle([(each, ACKED) for each in found])) == found
    # What asks for their owner is answered before these, with the text of its script at the latest.
    for _ in range(2):
        await connection.send("PING")
    assert "not pending" not in caplog.text


@pytest.fixture
def large():
    """Return the fields of an entry over the limit of what is delivered."""
    return {"data": "1" * (3 * 1024 * 1024), "id": "large", "at": "5.5", "only_short": "x"}


@pytest.fixture
async def held_by_another(redis_backend, redis_client, stream, large):
    """Return the id of an entry over the limit, held by a consumer that died of it."""
    await redis_backend.subscribe(KEY, GROUP)
    entry_id = await redis_client.xadd(stream, large)
    await redis_client.xreadgroup(GROUP, "other/lease=1", {stream: ">"})
    return entry_id.decode()


@pytest.mark.parametrize("subscribe", ["subscribe", "subscribe_exclusive"])
async def test_an_entry_over_the_limit_is_dead_lettered_on_the_server(
    redis_backend, redis_client, held_by_another, subscribe, stream, caplog
):
    handle = await getattr(redis_backend, subscribe)(KEY, GROUP)
    sent = await redis_client.info("stats")
    await redis_backend.append([new_message(KEY, b"2")])
    (came,) = await take(handle, 1)
    assert came.message.body == b"2"
    await ack(handle, [came])
    received = await redis_client.info("stats")
    assert received["total_net_output_bytes"] - sent["total_net_output_bytes"] < 1_000_000
    (dead,) = await redis_backend.dead_letters(KEY, GROUP)
    assert (dead.route, dead.message.id, dead.message.published_at) == (f"{KEY}/{GROUP}", "large", 5.5)
    assert (dead.message.body, dead.message.headers["beginning"]) == (b"", "1" * 1000)
    assert dead.message.headers["only_short"] == "x"
    assert (dead.reason.kind, dead.deliveries) == ("malformed", 2)
    assert "the entry has 3145" in dead.reason.message
    assert (await redis_client.xpending(stream, GROUP))["pending"] == 0
    assert held_by_another in caplog.text


async def test_a_replay_of_an_entry_over_the_limit_delivers_no_part_of_its_payload(
    redis_backend, held_by_another
):
    handle = await redis_backend.subscribe(KEY, GROUP)
    async with asyncio.timeout(HANG):
        while not (found := await redis_backend.dead_letters(KEY, GROUP)):
            await handle.fetch(1, 0.05)
    assert await redis_backend.replay(KEY, GROUP, [found[0].id]) == 1
    (again,) = await take(handle, 1)
    assert (again.message.id, again.message.body) == ("large", b"")
    assert again.fault.startswith("no field `data`")


@pytest.mark.parametrize("field", ["data", "headers", "x"])
async def test_the_dead_letter_of_a_delivered_entry_over_the_limit_keeps_what_is_short(
    redis_backend, redis_client, stream, dead, field
):
    """Each of its fields is within the limit, so it was read."""
    handle = await redis_backend.subscribe(KEY, GROUP)
    half = "1" * (3 * 1024 * 512)
    text = json.dumps({"a": half}) if field == "headers" else half
    await redis_client.xadd(stream, {"data": "1", "id": "large", "headers": "{}", "y": half, field: text})
    (came,) = await take(handle, 1)
    assert not await handle.settle([(came, as_dead(came))])
    ((_, fields),) = await redis_client.xrange(dead)
    assert sum(map(len, fields.values())) < 10_000
    (listed,) = await redis_backend.dead_letters(KEY, GROUP)
    assert listed.message.id == "large"


async def test_an_answer_that_is_too_large_ends_the_connection_and_then_no_other(
    redis_backend, redis_client, stream, large, monkeypatch
):
    monkeypatch.setattr(protocol, "MOST_BYTES", 3 * 1024 * 1024)
    handle = await redis_backend.subscribe(KEY, GROUP)
    half = "1" * (2 * 1024 * 1024)
    await redis_client.xadd(stream, {**large, "data": half, "x": half})
    await redis_client.xadd(stream, {"data": "2"})
    found = []
    async with asyncio.timeout(HANG):
        while not found:
            with suppress(BackendUnavailable):
                found = await handle.fetch(1, 1.0)
    assert [each.message.body for each in found] == [b"2"]
    (dead,) = await redis_backend.dead_letters(KEY, GROUP)
    assert dead.message.id == "large"
