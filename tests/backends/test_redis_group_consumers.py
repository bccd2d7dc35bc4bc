"""Large batches have consumers of their own: what numbers of pending entries prove, and what they do not."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends.redis.group_consumers import LARGE, GroupConsumers
from abe_router.backends.redis.scripts import ACK, without_proof
from abe_router.messages.message import new_message
from tests.limits import HANG

KEY = "orders.created"
IDS = [b"%d-0" % n for n in range(1, 101)]


@pytest.fixture
def stream(prefix):
    return f"{prefix}{KEY}"


@pytest.fixture
async def handle(redis_backend):
    return await redis_backend.subscribe(KEY, "billing")


async def fetched(backend, handle, count=100):
    """Append so many messages, and return their deliveries."""
    await backend.append([new_message(KEY, b"%d" % n) for n in range(count)])
    found = []
    async with asyncio.timeout(HANG):
        while len(found) < count:
            found += await handle.fetch(500, 5.0)
    return found


def acked(deliveries):
    return [(delivery, ACKED) for delivery in deliveries]


async def pending(client, stream):
    return (await client.xpending(stream, "billing"))["pending"]


async def asked(client, command):
    """Return how often the server ran a command so far."""
    return (await client.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})["calls"]


def made():
    """Return the consumers of a handle, and one that has read `IDS`."""
    consumers = GroupConsumers("me/lease=1000")
    large = consumers.for_read(500)
    consumers.received(IDS, large)
    return consumers, large


class TestProof:
    def test_the_number_of_unsettled_entries_proves_that_all_are_held(self):
        consumers, large = made()
        assert large.proof(IDS[:40]) == 100
        consumers.forget(IDS[:40], large)
        assert large.proof(IDS[40:]) == 60
        consumers.forget(IDS[40:], large)
        assert large.is_free

    @pytest.mark.parametrize("again", [IDS[:40], [IDS[50], IDS[50]], [b"7-7"]])
    def test_no_number_proves_that_an_entry_is_held_twice_or_that_an_unknown_one_is(self, again):
        consumers, large = made()
        consumers.forget(IDS[:40], large)
        assert not large.proof(again)

    def test_no_number_proves_anything_while_a_read_or_a_settlement_is_under_way(self):
        _, large = made()
        large.under_way += 1
        assert not large.proof(IDS)

    def test_no_number_proves_anything_after_a_lost_answer(self):
        consumers, large = made()
        large.under_way += 1
        consumers.distrust_all()
        large.under_way -= 1
        assert not large.proof(IDS)
        assert consumers.uncertain == [consumers.first, large]
        assert consumers.for_read(500) not in (consumers.first, large)

    def test_small_reads_and_those_beyond_four_unsettled_batches_share_a_consumer(self):
        consumers = GroupConsumers("me/lease=1000")
        assert consumers.for_read(LARGE - 1) is consumers.first
        for n in range(4):
            consumers.received([b"%d-%d" % (n, m) for m in range(LARGE)], consumers.for_read(LARGE))
        assert consumers.for_read(500) is consumers.first
        assert not consumers.first.proof(IDS)
        assert consumers.names == ["me/lease=1000", *(f"me.{n}/lease=1000" for n in range(1, 5))]

    def test_an_entry_that_comes_once_more_is_held_by_its_last_consumer(self):
        consumers, large = made()
        consumers.received(IDS[:1], consumers.first)
        assert consumers.held[IDS[0]] is consumers.first
        assert large.proof(IDS[1:]) == 99

    def test_a_refused_ack_is_sent_again_without_its_number(self):
        args = ("EVALSHA", ACK.sha, 3, "s", "f", "d", "billing", "me", 1, 2, b"1-0", b"2-0")
        again = ("EVALSHA", ACK.sha, 3, "s", "f", "d", "billing", "me", 1, 0, b"1-0", b"2-0")
        assert without_proof(args) == again
        assert without_proof(("XLEN", "s")) == ("XLEN", "s")


async def test_a_large_batch_is_acked_by_one_look_at_the_group(
    redis_backend, redis_client, handle, stream, monkeypatch
):
    """The server makes no list of the entries: a guard against the cost of that."""
    deliveries, proofs = await fetched(redis_backend, handle), []
    connection = redis_backend._node.connection
    run = connection.run

    def record(script, keys, args=()):
        proofs.extend([args[3]] if script is ACK else [])
        return run(script, keys, args)

    monkeypatch.setattr(connection, "run", record)
    before = await asked(redis_client, "xpending")
    assert not await handle.settle(acked(deliveries[::-1]))
    assert proofs == [100]
    assert await asked(redis_client, "xpending") == before + 1
    assert not await pending(redis_client, stream)


async def test_what_another_consumer_claimed_is_refused_and_the_rest_is_acked(
    redis_backend, redis_client, handle, stream
):
    deliveries = await fetched(redis_backend, handle)
    lost = deliveries[30]
    assert await redis_client.xclaim(stream, "billing", "thief", 0, [lost.receipt])
    assert await handle.settle(acked(deliveries)) == [lost]
    assert await pending(redis_client, stream) == 1
    assert not await handle.settle(acked(await fetched(redis_backend, handle)))


async def test_an_entry_that_is_acked_twice_is_refused_once(redis_backend, handle):
    first, *rest = await fetched(redis_backend, handle)
    assert await handle.settle(acked([first, first, *rest])) == [first]
    assert await handle.settle(acked(rest)) == rest


async def test_a_group_that_began_anew_refuses_what_it_gave_before(
    redis_backend, redis_client, handle, stream
):
    deliveries = await fetched(redis_backend, handle)
    await redis_client.xgroup_destroy(stream, "billing")
    await redis_client.xgroup_create(stream, "billing", "0")
    await redis_client.xreadgroup("billing", "another", {stream: ">"}, count=100)
    assert await handle.settle(acked(deliveries)) == deliveries
    assert await pending(redis_client, stream) == 100


async def test_an_error_of_the_server_ends_the_proof_and_loses_nothing(
    redis_backend, redis_client, handle, stream, monkeypatch
):
    deliveries = await fetched(redis_backend, handle)
    connection = redis_backend._node.connection
    run = connection.run

    def fail(script, keys, args=()):
        return connection.send("NO-SUCH-COMMAND")

    monkeypatch.setattr(connection, "run", fail)
    with pytest.raises(Exception, match="unknown command"):
        await handle.settle(acked(deliveries[:50]))
    monkeypatch.setattr(connection, "run", run)
    # As many entries are gone as were not settled: a number would prove that none is.
    assert await redis_client.xclaim(stream, "billing", "thief", 0, [d.receipt for d in deliveries[50:]])
    assert await handle.settle(acked(deliveries[50:])) == deliveries[50:]
    assert not await handle.settle(acked(deliveries[:50]))


async def test_other_outcomes_and_renewals_reach_the_consumer_that_holds_the_entry(
    redis_backend, redis_client, handle, stream
):
    deliveries = await fetched(redis_backend, handle)
    assert not await handle.extend(deliveries)
    outcomes = [(deliveries[0], Delayed(60.0)), (deliveries[1], RELEASED), *acked(deliveries[2:])]
    assert not await handle.settle(outcomes)
    assert await pending(redis_client, stream) == 2
    await handle.close()
    async with asyncio.timeout(HANG):  # they are deleted behind the close
        while {b":delayed", b":released"} != {
            each["name"] for each in await redis_client.xinfo_consumers(stream, "billing")
        }:
            await asyncio.sleep(0.01)


async def test_what_a_new_group_gave_us_before_we_knew_of_its_loss_is_settled(redis_backend, handle):
    """Another process creates the group anew, and a read that was under way brings entries of it."""
    found = await fetched(redis_backend, handle)
    handle.reader.streams[KEY].consumers.forget_all()  # as when an answer says that it was lost
    assert not await handle.extend(found)
    assert not await handle.settle(acked(found))
