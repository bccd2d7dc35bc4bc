"""What handlers emit to another hash tag: the outbox and its movers, on one server that takes all tags."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import msgspec
import pytest

from abe_router.backend import Acked
from abe_router.backends import make_backend
from abe_router.backends.redis.entry import order
from abe_router.backends.redis.names import OUTBOX
from abe_router.backends.redis.partitioned import mover as mover_module
from abe_router.backends.redis.partitioned import outbox as outbox_module
from abe_router.backends.redis.partitioned.mover import Mover
from abe_router.backends.redis.partitioned.outbox import Move
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import new_id, new_message
from tests.limits import HANG

SLOTS = 4


@pytest.fixture
async def backend(redis_server, prefix):
    """Yield a backend whose keys are spread over four hash tags of one server."""
    async with make_backend(f"{redis_server.url}?hash_tag=abe&slots={SLOTS}", prefix=prefix) as backend:
        yield backend


def key_in(backend, number, name="k"):
    """Return a key of a partition."""
    keys = (f"{name}.{n}" for n in range(1000))
    return next(key for key in keys if backend._layout.number(key) == number)


async def emit(backend, source, outputs, *, window=0.0, until_moved=True):
    """Settle one message of partition `source` with outputs, given as pairs of a key and an id."""
    key = key_in(backend, source)
    handle = await backend.subscribe(key, "billing")
    await backend.publish(key, 1)
    (held,) = await handle.fetch(1, HANG)
    messages = tuple(new_message(to, b"1", id=id) for to, id in outputs)
    assert not await handle.settle([(held, Acked(messages, window))])
    if until_moved:
        await drained(backend)
    await handle.close()
    return held


async def node_of(backend, number):
    return await backend._partitions[number].opened()


async def outbox(backend, number=0):
    """Return the entries of an outbox."""
    node = await node_of(backend, number)
    return await node.connection.send("XRANGE", node.names.stream(OUTBOX), "-", "+")


async def drained(backend):
    """Wait until all outboxes are empty."""
    async with asyncio.timeout(HANG):
        while any([await outbox(backend, number) for number in range(SLOTS)]):
            await asyncio.sleep(0.005)


async def stored(backend, pattern="#"):
    """Return the ids of the stored messages, without those that `emit` published as causes."""
    seen = await backend.peek(pattern, None, limit=1000)
    return [each.message.id for each in seen if each.message.id.startswith("o")]


class TestOutputs:
    async def test_arrive_in_the_order_of_the_acks(self, backend):
        key, handle = key_in(backend, 0), await backend.subscribe(key_in(backend, 0), "billing")
        targets = [key_in(backend, number) for number in range(SLOTS)]
        await backend.append([new_message(key, b"1") for _ in range(300)])
        count = 0
        while count < 300:
            held = await handle.fetch(50, HANG)
            outcomes = [
                Acked(tuple(new_message(to, b"1", id=f"o{count + n}-{to}") for to in targets))
                for n in range(len(held))
            ]
            assert not await handle.settle(list(zip(held, outcomes, strict=True)))
            count += len(held)
        await drained(backend)
        for to in targets:
            assert await stored(backend, to) == [f"o{n}-{to}" for n in range(300)]

    async def test_are_unchanged(self, backend):
        to, handle = key_in(backend, 1), await backend.subscribe(key_in(backend, 0), "billing")
        await backend.publish(handle.pattern, 1)
        (held,) = await handle.fetch(1, HANG)
        output = new_message(to, b'{"a": "\xc3\xbc"}', headers={"h": "\U0001f4e6"}, id="o \u00fc")
        assert not await handle.settle([(held, Acked((output,)))])
        reader = await backend.subscribe(to, "audit")
        (came,) = await reader.fetch(1, HANG)
        found = came.message
        assert (found.id, found.body, dict(found.headers)) == (output.id, output.body, dict(output.headers))
        assert abs(found.published_at - output.published_at) < 0.001

    async def test_are_deduplicated_by_their_own_id_where_they_go(self, backend):
        to = key_in(backend, 1)
        for source in (0, 2, 3):
            await emit(backend, source, [(to, "o1")], window=60.0)
        assert await stored(backend) == ["o1"]
        await emit(backend, 0, [(to, "o1")])
        assert await stored(backend) == ["o1", "o1"]

    async def test_wait_in_no_key_that_a_user_sees(self, backend, monkeypatch):
        monkeypatch.setattr(Mover, "_pass", lambda self: asyncio.sleep(0, math.inf))
        await backend.subscribe("#", "all")
        await emit(backend, 0, [(key_in(backend, 1), "o1")], until_moved=False)
        assert len(await outbox(backend)) == 1
        assert await stored(backend) == []
        assert {status.name for status in await backend.status()} == {
            "#/all",
            f"{key_in(backend, 0)}/billing",
        }
        await asyncio.sleep(0)
        await backend.trim({})
        assert len(await outbox(backend)) == 1

    async def test_count_as_ready_until_they_are_moved(self, backend, monkeypatch):
        to = key_in(backend, 1)
        for pattern, group in (("#", "all"), (to, "audit"), (key_in(backend, 2), "other")):
            await backend.subscribe(pattern, group)
        with monkeypatch.context() as patch:
            patch.setattr(Mover, "_pass", lambda self: asyncio.sleep(0, 0.01))
            await emit(backend, 0, [(to, "o1"), (to, "o2")], until_moved=False)
            before = {(each.pattern, each.group): each.ready for each in await backend.status()}
        await drained(backend)
        after = {(each.pattern, each.group): each.ready for each in await backend.status()}
        assert before[to, "audit"] == 2
        assert before["#", "all"] == 3  # with the cause
        assert before == after

    async def test_that_wait_for_long_are_a_finding_of_doctor(self, backend):
        assert "D336" not in [result.code for result in await backend.check_health()]
        node = await node_of(backend, 2)
        await node.connection.send("XADD", node.names.stream(OUTBOX), "1000-1", "data", "1")
        (found,) = [result for result in await backend.check_health() if result.code == "D336"]
        assert found.message.startswith(
            f"1 output in `{node.names.stream(OUTBOX)}` not moved yet, the oldest for "
        )


class Cut(Exception):
    """Ends a mover, as a kill does."""


class CutConnection:
    """A connection that ends its user before or after one of its commands."""

    def __init__(self, connection, steps):
        self._connection, self._steps = connection, steps

    async def open(self):
        await self._connection.open()

    async def run(self, *call):
        return await self._steps.run(lambda: self._connection.run(*call))

    async def send(self, *command):
        return await self._steps.run(lambda: self._connection.send(*command))


class Steps:
    """Counts commands, and ends the mover before, or `after`, number `at`."""

    def __init__(self, at, *, after):
        self._left, self._after = at, after

    async def run(self, call):
        self._left -= 1
        is_it = self._left == 0
        if is_it and not self._after:
            raise Cut
        reply = await call()
        if is_it:
            raise Cut
        return reply


def cut_mover(backend, nodes, steps):
    """Return a mover of the first outbox that ends at one of its steps."""

    def cut(node):
        connection = CutConnection(node.connection, steps)
        return SimpleNamespace(
            connection=connection,
            appending=connection,
            names=node.names,
            notifier=node.notifier,
            appender=node.appender,
            replicas=0,
        )

    async def connect(number):
        return cut(nodes[number])

    return Mover(cut(nodes[0]), backend._layout.number, connect)


class TestMovers:
    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch):
        monkeypatch.setattr(mover_module, "LEASE", 0.05)
        monkeypatch.setattr(mover_module, "_PAGE", 3)

    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    async def test_that_die_at_any_step_lose_and_double_nothing(self, backend, monkeypatch, after):
        targets = [key_in(backend, 1), key_in(backend, 2)]
        nodes = [await node_of(backend, number) for number in range(SLOTS)]
        expected, cuts = {to: [] for to in targets}, 0
        while True:
            with monkeypatch.context() as patch:
                patch.setattr(backend._movers, "start", lambda: None)
                outputs = [(targets[n % 2], f"o{cuts:03}-{n}") for n in range(8)]
                await emit(backend, 0, outputs, until_moved=False)
            for to, id in outputs:
                expected[to].append(id)
            steps, ended = Steps(cuts + 1, after=after), False
            try:
                await cut_mover(backend, nodes, steps)._pass()
                ended = True
            except Cut:
                cuts += 1
            await asyncio.sleep(0.06)  # the ownership of the dead mover ends
            heir = cut_mover(backend, nodes, Steps(0, after=after))
            await heir._pass()
            await heir.close()
            for to in targets:
                assert await stored(backend, to) == expected[to]
            if ended:
                break
        assert cuts >= 9

    async def test_that_stood_still_double_nothing(self, backend, monkeypatch):
        to = key_in(backend, 1)
        monkeypatch.setattr(backend._movers, "start", lambda: None)
        nodes = [await node_of(backend, number) for number in range(SLOTS)]
        await emit(backend, 0, [(to, f"o{n}") for n in range(5)], until_moved=False)
        go_on = asyncio.Event()

        class Still(Steps):
            async def run(self, call):
                self._left -= 1
                if self._left == 0:
                    await go_on.wait()
                return await call()

        slow = asyncio.create_task(cut_mover(backend, nodes, Still(2, after=False))._pass())
        await asyncio.sleep(0.06)
        await cut_mover(backend, nodes, Steps(0, after=False))._pass()
        await emit(backend, 0, [(to, "o5")], until_moved=False)
        go_on.set()
        await slow
        await asyncio.sleep(0.06)
        await cut_mover(backend, nodes, Steps(0, after=False))._pass()
        assert await stored(backend) == [f"o{n}" for n in range(6)]

    async def test_append_once_what_a_failover_brought_back(self, backend):
        node = await node_of(backend, 0)
        stream = node.names.stream(OUTBOX)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backend._movers, "start", lambda: None)
            await emit(backend, 0, [(key_in(backend, 1), "o1")], until_moved=False)
            await emit(backend, 0, [(key_in(backend, 1), "o2")], until_moved=False)
        (_, first), (_, second) = await outbox(backend)
        await node.connection.send("DEL", stream)
        for entry_id, fields in (("5000-1", first), ("1000-1", second), ("1000-2", first)):
            if entry_id == "1000-1":  # the new master begins below what the old one gave
                await drained(backend)
                await node.connection.send("DEL", stream)
            await node.connection.send("XADD", stream, entry_id, *fields)
            backend._movers.start()
        await drained(backend)
        assert await stored(backend) == ["o1", "o2"]

    async def test_append_once_although_the_ack_was_undone(self, backend):
        key, to = key_in(backend, 0), key_in(backend, 1)
        handle = await backend.subscribe(key, "billing")
        await backend.publish(key, 1)
        (held,) = await handle.fetch(1, HANG)
        node = await node_of(backend, 0)
        before = await node.connection.send("DUMP", node.names.stream(key))
        assert not await handle.settle([(held, Acked((new_message(to, b"1", id="o1"),)))])
        await drained(backend)
        await node.connection.send("RESTORE", node.names.stream(key), 0, before, "REPLACE")
        assert not await handle.settle([(held, Acked((new_message(to, b"1", id="o1 again"),)))])
        await drained(backend)
        assert await stored(backend) == ["o1"]

    async def test_hold_up_only_what_goes_to_an_absent_master(self, backend, monkeypatch):
        absent = backend._partitions[1]
        opened = absent.opened

        async def fail():
            raise BackendUnavailable("the master is gone")

        await opened()
        outputs = [(key_in(backend, 1 + n % 2), f"o{n}") for n in range(8)]
        monkeypatch.setattr(absent, "opened", fail)
        await emit(backend, 0, outputs, until_moved=False)
        async with asyncio.timeout(HANG):
            while len(await outbox(backend)) > 4:
                await asyncio.sleep(0.005)
        assert await stored(backend, key_in(backend, 2)) == ["o1", "o3", "o5", "o7"]
        monkeypatch.setattr(absent, "opened", opened)
        await drained(backend)
        assert await stored(backend, key_in(backend, 1)) == ["o0", "o2", "o4", "o6"]

    async def test_hold_up_only_the_key_that_the_server_refuses(self, backend):
        refused, other = (key_in(backend, 1, name) for name in ("refused", "other"))
        node = await node_of(backend, 1)
        await node.connection.send("SET", node.names.stream(refused), "no stream")
        outputs = [((refused, other)[n % 2], f"o{n}") for n in range(8)]
        await emit(backend, 0, outputs, until_moved=False)
        async with asyncio.timeout(HANG):
            while len(await outbox(backend)) > 4:
                await asyncio.sleep(0.005)
        assert await stored(backend, other) == ["o1", "o3", "o5", "o7"]
        await node.connection.send("DEL", node.names.stream(refused))
        await drained(backend)
        assert await stored(backend, refused) == ["o0", "o2", "o4", "o6"]

    async def test_of_another_process_continue(self, redis_server, prefix, backend):
        url = f"{redis_server.url}?hash_tag=abe&slots={SLOTS}"
        async with make_backend(url, prefix=prefix) as other:
            await other.subscribe(key_in(backend, 3), "billing")
            await emit(other, 0, [(key_in(backend, 1), "o1")])
            await emit(backend, 0, [(key_in(backend, 1), "o2")])
        await emit(backend, 0, [(key_in(backend, 1), "o3")])
        assert await stored(backend) == ["o1", "o2", "o3"]


def identity_of_the_run(patch):
    """Identify a move by the run of the handler: an undone ack emits again."""
    patch.setattr(outbox_module, "_identity", lambda *_: new_id())


def identity_of_the_entry(patch):
    """Identify a move by the entry of the outbox: a failover gives another id."""
    read = Move.read
    patch.setattr(
        Move,
        "read",
        lambda entry, fields: msgspec.structs.replace(read(entry, fields), identity=entry.decode()),
    )


def last_entry_moved(patch):
    """Pass over entries up to the last one that was moved: a failover gives lower ids to new outputs."""
    move, last = Mover._move, [(0, 0)]

    async def newer(self, rows, held_up):
        done = await move(self, [row for row in rows if order(row[0]) > last[0]], held_up)
        last[0] = max([last[0], *map(order, done)])
        return [entry for entry, _ in rows]

    patch.setattr(Mover, "_move", newer)


def deletes_first(patch):
    """Delete an entry before its output is appended: a mover that dies loses it."""
    append = Mover._append

    async def delete_and_append(self, number, moves, *rest):
        await self._source.connection.send("XDEL", self.stream, *(move.entry for move in moves))
        return await append(self, number, moves, *rest)

    patch.setattr(Mover, "_append", delete_and_append)


def identity_of_the_mover(patch):
    """Identify a move by the mover: the next one doubles what a dead one appended."""
    read = Move.read
    patch.setattr(
        Move, "read", lambda entry, fields: msgspec.structs.replace(read(entry, fields), identity=new_id())
    )


@pytest.mark.parametrize(
    ("bug", "test", "after"),
    [
        (identity_of_the_run, TestMovers.test_append_once_although_the_ack_was_undone, None),
        (identity_of_the_entry, TestMovers.test_append_once_what_a_failover_brought_back, None),
        (last_entry_moved, TestMovers.test_append_once_what_a_failover_brought_back, None),
        (deletes_first, TestMovers.test_that_die_at_any_step_lose_and_double_nothing, True),
        (identity_of_the_mover, TestMovers.test_that_die_at_any_step_lose_and_double_nothing, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_seeded_bug_is_found(backend, monkeypatch, bug, test, after):
    monkeypatch.setattr(mover_module, "LEASE", 0.05)
    monkeypatch.setattr(mover_module, "_PAGE", 3)
    bug(monkeypatch)
    arguments = () if after is None else (monkeypatch, after)
    with pytest.raises((AssertionError, TimeoutError)):
        await test(TestMovers(), backend, *arguments)
