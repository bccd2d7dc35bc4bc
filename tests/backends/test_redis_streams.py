"""The Redis provider beside other programs on one server, and after a server lost or refused something."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends.redis import RedisBackend, discovery, reaper, registry
from abe_router.errors import BackendError, BackendUnavailable
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import ack, as_dead, bodies, take

KEY, GROUP = "orders.created", "billing"


@pytest.fixture
def stream(prefix):
    return f"{prefix}{KEY}"


async def publish(backend, count, key=KEY, first=0):
    messages = [new_message(key, b"%d" % n) for n in range(first, first + count)]
    await backend.append(messages)
    return messages


class TestOtherPrograms:
    async def test_they_read_our_messages(self, redis_backend, redis_client, stream):
        message = await redis_backend.publish(KEY, {"total": 3}, headers={"trace": "a"})
        ((_, fields),) = await redis_client.xrange(stream)
        assert json.loads(fields[b"data"]) == {"total": 3}
        assert fields[b"id"].decode() == message.id
        assert float(fields[b"at"]) == message.published_at
        assert json.loads(fields[b"headers"]) == {"trace": "a"}

    async def test_we_read_their_messages(self, redis_backend, redis_client, stream):
        handle = await redis_backend.subscribe(KEY, GROUP)
        entry_id = await redis_client.xadd(stream, {"data": '{"total": 3}'})
        (delivery,) = await take(handle, 1)
        assert delivery.message.id == entry_id.decode()
        assert delivery.message.payload == {"total": 3}
        assert delivery.message.published_at == int(entry_id.split(b"-")[0]) / 1000

    @pytest.mark.parametrize(
        "fields",
        [
            {"payload": "1"},
            {"data": "1", "id": "x", "at": "soon"},
            {"data": "1", "id": b"\xff", "at": "1"},
            {"data": "1", "headers": "[1]"},
            {"at": "1", "id": "x", "data": "1"},
        ],
    )
    async def test_an_entry_of_any_shape_is_delivered_and_can_be_settled(
        self, redis_backend, redis_client, stream, fields
    ):
        handle = await redis_backend.subscribe(KEY, GROUP)
        await redis_client.xadd(stream, fields)
        (delivery,) = await take(handle, 1)
        assert delivery.message.body == (b"1" if "data" in fields else b"")
        assert delivery.message.published_at > 0
        assert not await handle.settle([(delivery, as_dead(delivery))])
        (dead_letter,) = await redis_backend.dead_letters(KEY, GROUP)
        assert await redis_backend.replay(KEY, GROUP, [dead_letter.id]) == 1
        assert [again.message for again in await take(handle, 1)] == [delivery.message]

    @pytest.mark.alone
    async def test_a_waiting_fetch_gets_their_messages_at_once(
        self, redis_backend, redis_client, stream, control
    ):
        handle = await redis_backend.subscribe(KEY, GROUP)
        for n in range(5):
            fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
            await asyncio.sleep(0.03)
            began = time.time()
            await redis_client.xadd(stream, {"data": str(n)})
            assert bodies(await fetching) == [b"%d" % n]
            assert control.since(began) < 0.2

    async def test_a_pattern_finds_their_old_and_new_streams(
        self, redis_backend, redis_client, prefix, monkeypatch
    ):
        monkeypatch.setattr(discovery, "INTERVAL", 0.1)
        monkeypatch.setattr(discovery, "_SCAN_FACTOR", 0.0)  # however long a scan takes
        await redis_client.xadd(f"{prefix}orders.a", {"data": "1"})
        await redis_client.xadd(f"{prefix}orders.a.b", {"data": "2"})
        await redis_client.set(f"{prefix}orders.c", "no stream")
        handle = await redis_backend.subscribe("orders.*", GROUP)
        await redis_client.xadd(f"{prefix}orders.d", {"data": "3"})
        came = await take(handle, 2)
        assert {(d.message.key, d.message.body) for d in came} == {("orders.a", b"1"), ("orders.d", b"3")}

    async def test_a_prefix_hides_the_keys_of_other_prefixes(self, redis_backend, redis_client, redis_server):
        await publish(redis_backend, 1)
        async with RedisBackend.from_url(redis_server.url, prefix="other*.") as other:
            handle = await other.subscribe("#", GROUP)
            assert not await handle.fetch(10, 0)

    async def test_entries_that_a_foreign_consumer_abandoned_come_after_our_lease(
        self, redis_backend, redis_client, stream
    ):
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.2)
        await publish(redis_backend, 3)
        await redis_client.xreadgroup(GROUP, "somebody:1", {stream: ">"}, count=3)
        assert not await handle.fetch(10, 0.05)
        assert bodies(await take(handle, 3)) == [b"0", b"1", b"2"]

    async def test_an_entry_that_a_foreign_consumer_claimed_is_refused(
        self, redis_backend, redis_client, stream
    ):
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 4)
        held = await take(handle, 4)
        await redis_client.xclaim(stream, GROUP, "thief", 0, [held[1].receipt])
        outcomes = (ACKED, ACKED, Delayed(0.0), as_dead(held[3]))
        refused = await handle.settle(list(zip(held, outcomes, strict=True)))
        assert list(refused) == [held[1]] == list(await handle.extend([held[1]]))
        pending = await redis_client.xpending_range(stream, GROUP, "-", "+", 10, "thief")
        assert [row["message_id"] for row in pending] == [held[1].receipt]

    @pytest.mark.parametrize("step", ["settle", "extend"])
    async def test_entries_whose_consumer_was_deleted_are_counted(
        self, redis_backend, redis_client, stream, step, caplog
    ):
        """They are not delivered again. What another consumer claimed is, so it does not count."""
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 4)
        held = await take(handle, 4)
        await redis_client.xclaim(stream, GROUP, "thief", 0, [held[0].receipt])
        for name in await consumers(redis_client, stream) - {b"thief"}:
            assert await redis_client.xgroup_delconsumer(stream, GROUP, name) == 3
        if step == "settle":
            assert len(await handle.settle([(delivery, ACKED) for delivery in held])) == 4
        else:
            assert len(await handle.extend(held)) == 4
        await redis_backend.status()
        assert caplog.text.count(f"not pending in group `{GROUP}` any more: 3") == 1

    async def test_entries_that_settle_after_settle_finds_gone_are_logged_together(
        self, redis_backend, redis_client, stream, caplog, monkeypatch
    ):
        monkeypatch.setattr("abe_router.backends.redis.settlement._GATHERED", 0.2)
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 20)
        held = await take(handle, 20)
        for name in await consumers(redis_client, stream):
            await redis_client.xgroup_delconsumer(stream, GROUP, name)
        for delivery in held:
            assert await handle.settle([(delivery, ACKED)]) == [delivery]
        counts: list[int] = []
        async with asyncio.timeout(HANG):
            while sum(counts) < 20:
                await asyncio.sleep(0.01)
                counts = [int(n) for n in re.findall(r"any more: (\d+);", caplog.text)]
        assert counts[0] == 1
        assert len(counts) < 20

    async def test_a_repeated_settlement_is_no_loss(self, redis_backend, caplog):
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 2)
        held = await take(handle, 2)
        await ack(handle, held[:1])
        assert await handle.settle([(held[0], ACKED)]) == held[:1]
        assert await handle.extend(held) == held[:1]
        settling = asyncio.ensure_future(handle.settle([(held[1], ACKED)]))
        protocol = redis_backend._node.connection._protocol
        protocol._transport.pause_reading()
        await asyncio.sleep(0.1)
        protocol.abort("cut by the test")
        with pytest.raises(BackendUnavailable):
            await settling
        assert await handle.settle([(held[1], ACKED)]) == held[1:]
        await redis_backend.status()
        assert "not pending" not in caplog.text

    async def test_a_replay_reaches_only_its_own_group(self, redis_backend):
        handles = [
            await redis_backend.subscribe(pattern, group)
            for pattern, group in ((KEY, GROUP), (KEY, "audit"), ("orders.*", GROUP))
        ]
        await publish(redis_backend, 1)
        for handle in handles:
            (delivery,) = await take(handle, 1)
            outcome = as_dead(delivery) if handle is handles[2] else ACKED
            assert not await handle.settle([(delivery, outcome)])
        (dead_letter,) = await redis_backend.dead_letters("orders.*", GROUP)
        assert await redis_backend.replay("orders.*", GROUP, [dead_letter.id]) == 1
        assert bodies(await take(handles[2], 1)) == [b"0"]
        late = await redis_backend.subscribe(KEY, "late")
        assert len(await take(late, 1)) == 1
        for handle in (*handles, late):
            assert not await handle.fetch(10, 0)
        counts = {(s.pattern, s.group): (s.ready, s.in_flight) for s in await redis_backend.status()}
        assert counts == {
            (KEY, GROUP): (0, 0),
            (KEY, "audit"): (0, 0),
            (KEY, "late"): (0, 1),
            ("orders.*", GROUP): (0, 1),
        }


class TestServerLoss:
    async def test_after_flushall_new_messages_arrive(self, redis_backend, redis_client, caplog):
        """FLUSHALL while a consumer waits: the group is created again and gets what comes from then on."""
        exact = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        pattern = await redis_backend.subscribe("orders.#", GROUP, lease=0.1)
        await publish(redis_backend, 5)
        held = await take(exact, 5)
        await ack(pattern, await take(pattern, 5))
        await redis_client.flushall()
        assert await exact.settle([(delivery, ACKED) for delivery in held]) == held
        await publish(redis_backend, 2, first=5)
        for handle in (exact, pattern):
            came = await take(handle, 2)
            assert bodies(came) == [b"5", b"6"]
            await ack(handle, came)
        assert "was gone and begins anew" in caplog.text
        counts = [(s.pattern, s.ready, s.in_flight) for s in await redis_backend.status()]
        assert counts == [("orders.#", 0, 0), (KEY, 0, 0)]

    async def test_a_destroyed_group_gets_its_stream_again(self, redis_backend, redis_client, stream, caplog):
        """Unsettled and settled messages come again."""
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        await publish(redis_backend, 4)
        early, late, *_ = await take(handle, 4)
        assert not await handle.settle([(early, ACKED), (late, Delayed(60.0))])
        await redis_client.xgroup_destroy(stream, GROUP)
        assert bodies(await take(handle, 4)) == [b"0", b"1", b"2", b"3"]
        assert caplog.text.count("was gone and begins anew") == 1

    async def test_the_loss_of_many_groups_is_logged_in_two_lines(self, redis_backend, redis_client, caplog):
        """One line for each of a thousand groups would bury the rest of the log."""
        handles = [await redis_backend.subscribe(f"orders.n{n}", GROUP, lease=0.1) for n in range(20)]
        await redis_client.flushall()
        for handle in handles:
            await publish(redis_backend, 1, key=handle.pattern)
            await take(handle, 1)
        async with asyncio.timeout(HANG):
            while "19 more groups were gone" not in caplog.text:
                await asyncio.sleep(0.01)
        assert caplog.text.count("begin") == 2

    async def test_a_group_that_is_lost_repeatedly_is_created_with_delays(
        self, redis_backend, redis_client, stream, caplog
    ):
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        ends = asyncio.get_running_loop().time() + 0.6
        while asyncio.get_running_loop().time() < ends:
            await redis_client.delete(stream)
            await handle.fetch(1, 0.01)
        assert caplog.text.count("was gone and begins anew") == 1

    async def test_a_trim_after_one_of_two_lost_groups_came_back_keeps_what_the_other_needs(
        self, redis_backend, redis_client
    ):
        """The other reads later: its handlers are busy. A bug registers only the group that came back."""
        early = await redis_backend.subscribe(KEY, GROUP)
        late = await redis_backend.subscribe(KEY, "audit")
        await redis_client.flushall()
        await publish(redis_backend, 3)
        await ack(early, await take(early, 3))
        await redis_backend.trim({})
        assert bodies(await take(late, 3)) == [b"0", b"1", b"2"]

    async def test_messages_before_a_group_is_created_again_are_kept(self, redis_backend, redis_client):
        """A bug loses messages that other groups settle during the delay, and that are trimmed."""
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        other = await redis_backend.subscribe(KEY, "audit", lease=0.1)
        await publish(redis_backend, 1)
        for lost in range(2):
            await redis_client.flushall()
            await publish(redis_backend, 1, first=lost)
            await handle.fetch(1, 0.5)
        await publish(redis_backend, 3, first=2)
        await ack(other, await take(other, 4))
        await redis_backend.trim({})
        assert bodies(await take(handle, 4)) == [b"1", b"2", b"3", b"4"]

    async def test_a_dropped_subscription_stays_dropped(self, redis_server, redis_backend, prefix, caplog):
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 1)
        async with RedisBackend.from_url(redis_server.url, prefix=prefix) as admin:
            assert await admin.drop(KEY, GROUP)
            with pytest.raises(BackendError, match=r"`orders\.created/billing` was dropped"):
                await handle.fetch(1, 0)
            assert not await admin.status()
            again = await admin.subscribe(KEY, GROUP)
            assert len(await take(again, 1)) == 1

    async def test_a_lost_registration_is_made_again(
        self, redis_backend, redis_client, prefix, monkeypatch, caplog
    ):
        """Otherwise nothing is trimmed, and no command shows the subscription, until the next restart."""
        monkeypatch.setattr(registry, "INTERVAL", 0.05)
        handle = await redis_backend.subscribe(KEY, GROUP)
        wild = await redis_backend.subscribe("orders.#", GROUP)
        await publish(redis_backend, 3)
        (dead, *rest) = await take(handle, 3)
        assert not await handle.settle([(dead, as_dead(dead)), *((each, ACKED) for each in rest)])
        await ack(wild, await take(wild, 3))
        base = f"abe-router:{{{prefix}}}"
        assert await redis_client.delete(f"{base}:subscriptions", f"{base}:keys") == 2
        async with asyncio.timeout(HANG):
            while len(await redis_backend.status()) < 2:
                await asyncio.sleep(0.01)
        assert [(s.pattern, s.dead) for s in await redis_backend.status()] == [("orders.#", 0), (KEY, 1)]
        assert len(await redis_backend.dead_letters(KEY, GROUP)) == 1
        assert await redis_backend.trim({}) == 3
        assert caplog.text.count("lost the registration") == 1

    async def test_a_dropped_subscription_is_not_registered_again(
        self, redis_server, redis_backend, prefix, monkeypatch, caplog
    ):
        monkeypatch.setattr(registry, "INTERVAL", 0.05)
        await redis_backend.subscribe(KEY, GROUP)
        async with RedisBackend.from_url(redis_server.url, prefix=prefix) as admin:
            assert await admin.drop(KEY, GROUP)
            await asyncio.sleep(0.3)
            assert not await admin.status()
        assert "lost the registration" not in caplog.text

    async def test_lost_scripts_are_sent_again(self, redis_backend, redis_client):
        handle = await redis_backend.subscribe(KEY, GROUP)
        for n in range(3):
            await redis_client.script_flush()
            await publish(redis_backend, 1, first=n)
            await redis_client.script_flush()
            await ack(handle, await take(handle, 1))
        assert not await handle.fetch(1, 0)

    async def test_text_of_a_lost_script_is_sent_once_for_many_commands(self, redis_backend, redis_client):
        handle = await redis_backend.subscribe("orders.*", GROUP)
        for _ in range(2):
            await redis_backend.append([new_message(f"orders.k{n}", b"1") for n in range(50)])
            deliveries = await take(handle, 50)
            await redis_client.script_flush()
            await redis_client.config_resetstat()
            await ack(handle, deliveries)
            found = await redis_client.info("commandstats")
            assert found["cmdstat_eval"]["calls"] < 5  # the backend renews its registration now and then
        assert not await handle.fetch(1, 0)

    async def test_retries_without_due_times_are_due_at_once(self, redis_backend, redis_client, prefix):
        """A bug loses retries whose due times the server evicted."""
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        await publish(redis_backend, 3)
        assert not await handle.settle([(delivery, Delayed(60.0)) for delivery in await take(handle, 3)])
        assert await redis_client.delete(f"abe-router:{{{prefix}{KEY}}}:delayed:{GROUP}") == 1
        again = await take(handle, 3)
        assert [(d.message.body, d.message.attempt) for d in again] == [(b"0", 2), (b"1", 2), (b"2", 2)]

    @pytest.mark.parametrize("outcome", [RELEASED, Delayed(0.0), None])
    async def test_the_number_of_messages_deleted_by_others_is_logged(
        self, redis_backend, redis_client, stream, outcome, caplog
    ):
        # Without an outcome, the leases end; those of what comes back do not.
        handle = await redis_backend.subscribe(KEY, GROUP, lease=30.0 if outcome else 0.1)
        await publish(redis_backend, 5)
        held = await take(handle, 5)
        if outcome:
            assert not await handle.settle([(delivery, outcome) for delivery in held])
        await redis_client.xtrim(stream, maxlen=2, approximate=False)
        later = await redis_backend.subscribe(KEY, GROUP, lease=30.0)
        assert bodies(await take(later, 2)) == [b"3", b"4"]
        counted = re.findall(
            rf"stream `{stream}` were deleted before group `{GROUP}` had .*: (\d)", caplog.text
        )
        assert sum(map(int, counted)) == 3
        (status,) = await redis_backend.status()
        assert (status.ready, status.in_flight, status.delayed) == (0, 2, 0)

    async def test_messages_that_a_group_was_never_given_are_logged(
        self, redis_backend, redis_client, stream, caplog
    ):
        watch = redis_backend._node.gaps
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 10)
        await take(handle, 2)
        await watch.look()
        assert not caplog.text
        await redis_client.xtrim(stream, maxlen=5, approximate=False)
        await watch.look()
        await watch.look()
        assert caplog.text.count(f"deleted before group `{GROUP}` was given them: 3") == 1
        await redis_client.xtrim(stream, maxlen=3, approximate=False)
        await watch.look()
        assert f"deleted before group `{GROUP}` was given them: 2" in caplog.text
        await take(handle, 3)
        caplog.clear()
        await watch.look()
        await redis_backend.trim({})
        await watch.look()
        assert not caplog.text

    async def test_a_position_that_another_program_set_is_logged(
        self, redis_backend, redis_client, stream, caplog
    ):
        watch = redis_backend._node.gaps
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 2)
        await ack(handle, await take(handle, 2))
        await watch.look()
        await publish(redis_backend, 3)
        await redis_client.xgroup_setid(stream, GROUP, "$")
        await watch.look()
        assert "with XGROUP SETID" in caplog.text

    async def test_a_group_that_is_lost_is_not_logged_as_a_position_that_was_set(
        self, redis_backend, redis_client, stream, caplog
    ):
        watch = redis_backend._node.gaps
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 2)
        await ack(handle, await take(handle, 2))
        await watch.look()
        await redis_client.xgroup_destroy(stream, GROUP)
        await watch.look()
        assert "XGROUP SETID" not in caplog.text

    async def test_a_dead_letter_keeps_a_deleted_message(self, redis_backend, redis_client, stream):
        handle = await redis_backend.subscribe(KEY, GROUP)
        (message,) = await publish(redis_backend, 1)
        (delivery,) = await take(handle, 1)
        await redis_client.xtrim(stream, maxlen=0, approximate=False)
        assert not await handle.settle([(delivery, as_dead(delivery))])
        (dead_letter,) = await redis_backend.dead_letters(KEY, GROUP)
        assert dead_letter.message.body == message.body


class TestServerRefusal:
    async def test_a_key_of_another_type_fails_no_other_message(
        self, redis_backend, redis_client, prefix, caplog
    ):
        """The publishers of one batch get results of their own."""
        await redis_client.set(f"{prefix}orders.bad", "no stream")
        keys = ["orders.a", "orders.bad", "orders.b", "orders.bad", "orders.a"]
        results = await asyncio.gather(
            *(publish(redis_backend, 2, key) for key in keys), return_exceptions=True
        )
        assert [type(answer).__name__ for answer in results] == [
            "list",
            "ServerError",
            "list",
            "ServerError",
            "list",
        ]
        assert "WRONGTYPE" in str(results[1])
        handle = await redis_backend.subscribe("orders.*", GROUP)
        assert len(await take(handle, 6)) == 6
        assert [record.levelname for record in caplog.records] == [
            "WARNING"
        ]  # for the pattern that has others
        with pytest.raises(BackendError, match=f"{prefix}orders.bad` gets no group.*WRONGTYPE"):
            await redis_backend.subscribe("orders.bad", GROUP)
        assert len(caplog.records) == 1  # the consumer reports what is raised, and less often than it retries
        counted = {each.pattern: each.in_flight for each in await redis_backend.status()}
        assert counted == {"orders.*": 6, "orders.bad": 0}
        assert f"{prefix}orders.bad` is not counted" in caplog.text

    async def test_messages_before_a_refused_one_are_kept(self, redis_backend, redis_client, prefix):
        await redis_client.set(f"{prefix}orders.bad", "no stream")
        messages = [new_message(key, b"1") for key in ("orders.a", "orders.bad", "orders.b")]
        with pytest.raises(BackendError):
            await redis_backend.append(messages)
        assert await redis_client.xlen(f"{prefix}orders.a") == 1
        assert await redis_client.xlen(f"{prefix}orders.b") == 0

    async def test_a_server_without_memory_refuses_publishers_and_accepts_acks(
        self, redis_backend, redis_client
    ):
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 2)
        await redis_client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BackendUnavailable, match="OOM"):
                await publish(redis_backend, 1)
            await ack(handle, await take(handle, 2))
        finally:
            await redis_client.config_set("maxmemory", 0)
        assert not await handle.fetch(1, 0)

    async def test_a_replica_is_unavailable_until_it_is_promoted(self, redis_server, redis_client, prefix):
        url = f"{redis_server.url}?socket_connect_timeout=0.5&socket_timeout=0.5"
        async with RedisBackend.from_url(url, prefix=prefix) as backend:
            await publish(backend, 1)
            await redis_client.execute_command("REPLICAOF", "127.0.0.1", 1)
            try:
                with pytest.raises(BackendUnavailable, match="READONLY"):
                    await publish(backend, 1)
            finally:
                await redis_client.execute_command("REPLICAOF", "NO", "ONE")
            await publish(backend, 1)


class TestConsumers:
    async def test_closing_deletes_the_consumer_unless_it_holds_messages(
        self, redis_backend, redis_client, stream
    ):
        idle, busy = await redis_backend.subscribe(KEY, GROUP), await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 1)
        await take(busy, 1)
        assert not await idle.fetch(1, 0)
        assert len(await redis_client.xinfo_consumers(stream, GROUP)) == 2
        await idle.close()
        await busy.close()
        await redis_backend.status()
        (consumer,) = await redis_client.xinfo_consumers(stream, GROUP)
        assert consumer["pending"] == 1

    async def test_idle_consumers_are_deleted_unless_they_hold_messages(
        self, redis_backend, redis_client, stream, monkeypatch
    ):
        handle = await redis_backend.subscribe(KEY, GROUP, lease=0.1)
        await publish(redis_backend, 1)
        await redis_client.xreadgroup(GROUP, "holds", {stream: ">"})
        await redis_client.xgroup_createconsumer(stream, GROUP, "gone")
        await redis_client.xclaim(stream, GROUP, "holds/lease=60000", 0, [await last(redis_client, stream)])
        monkeypatch.setattr(reaper, "_REAPING", 0.0)
        monkeypatch.setattr(reaper, "_IDLE", 0)
        async with asyncio.timeout(HANG):
            while await consumers(redis_client, stream) != {b"holds/lease=60000"}:
                await handle.fetch(1, 0.05)

    async def test_messages_of_an_interrupted_fetch_are_released(self, redis_server, redis_backend, prefix):
        """They arrive after the interrupt, and no later fetch may come for them."""
        handle = await redis_backend.subscribe(KEY, GROUP)
        await publish(redis_backend, 3)
        fetching = asyncio.create_task(handle.fetch(10, 2 * HANG))
        await asyncio.sleep(0)  # it has asked, and is interrupted before the reply
        handle.interrupt()
        assert not await fetching
        async with RedisBackend.from_url(redis_server.url, prefix=prefix) as other:
            came = await take(await other.subscribe(KEY, GROUP), 3)
        assert [(d.message.body, d.deliveries) for d in came] == [(b"0", 1), (b"1", 1), (b"2", 1)]

    async def test_large_payloads_come_in_pieces(self, redis_backend):
        handle = await redis_backend.subscribe(KEY, GROUP)
        body = b'"' + b"x" * 400_000 + b'"'
        await redis_backend.append([new_message(KEY, body) for _ in range(60)])
        sizes = []
        while sum(sizes) < 60:
            fetched = await handle.fetch(30, 1.0)
            sizes.append(len(fetched))
            await ack(handle, fetched)
        assert max(sizes[1:]) == 10


async def last(client, stream):
    ((entry_id, _),) = await client.xrevrange(stream, count=1)
    return entry_id


async def consumers(client, stream):
    return {consumer["name"] for consumer in await client.xinfo_consumers(stream, GROUP)}
