"""Acks on SQLite: few statements for many, and exactly the deliveries that are held."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.backend import ACKED, RELEASED
from abe_router.backends.sqlite import SQLiteBackend, ownership
from abe_router.backends.sqlite.ownership import AcquireRequest
from abe_router.messages.message import new_message
from tests.limits import HANG

from .deliveries import bodies, drain, take

KEY = "orders.created"


async def statements_of(backend, work):
    """Return the result, and the statements that write."""
    ran = []
    await backend._read(lambda d: d.connection.set_trace_callback(ran.append))
    result = await work
    await backend._read(lambda d: d.connection.set_trace_callback(None))
    return result, [
        sql for sql in ran if not sql.lstrip().startswith(("BEGIN", "COMMIT", "PRAGMA", "SELECT"))
    ]


async def leased(backend, count, *, keys=(KEY,), limit=1000):
    """Publish messages with the keys in turn; return a handle and its deliveries of the first key."""
    handle = await backend.subscribe(KEY, "g")
    await backend.append([new_message(keys[n % len(keys)], b"%d" % n) for n in range(count)])
    found = []
    while fetched := await handle.fetch(limit, 0):
        found += fetched
    return handle, found


@pytest.mark.parametrize("keys", [(KEY,), (KEY, "other")])
async def test_many_acks_of_one_fetch_are_one_statement(backend, keys):
    handle, found = await leased(backend, 1000, keys=keys)
    refused, ran = await statements_of(backend, handle.settle([(each, ACKED) for each in found]))
    assert not refused
    assert [sql.split()[0] for sql in ran] == ["SAVEPOINT", "DELETE", "RELEASE"]


async def test_acks_of_several_fetches_are_one_statement_each(backend):
    handle, found = await leased(backend, 90, limit=30)
    _, ran = await statements_of(backend, handle.settle([(each, ACKED) for each in reversed(found)]))
    assert len([sql for sql in ran if "DELETE" in sql]) == 3


@pytest.mark.parametrize("named", [(0, 0, 2), (2, 0, 0), (0, 0, 1), (1, 1)])
async def test_ack_named_twice_settles_no_other_delivery(backend, named):
    handle, found = await leased(backend, 3)
    refused = await handle.settle([(found[index], ACKED) for index in named])
    assert [bodies([each]) for each in refused] == [
        bodies([found[index]]) for place, index in enumerate(named) if index in named[:place]
    ]
    others = [each for index, each in enumerate(found) if index not in named]
    await handle.settle([(each, RELEASED) for each in others])
    assert bodies(await drain(handle)) == bodies(others)


async def test_ack_of_an_older_claim_is_refused_and_the_others_are_settled(backend):
    handle, (first, second, third) = await leased(backend, 3)
    await handle.settle([(second, RELEASED)])
    (again,) = await take(handle, 1)
    assert bodies([again]) == bodies([second])
    assert await handle.settle([(each, ACKED) for each in (first, second, third)]) == [second]
    assert await handle.settle([(again, ACKED)]) == []
    assert not await handle.fetch(10, 0)


async def test_large_body_of_another_program_is_a_fault_and_an_empty_one_is_not(backend, path):
    handle, _ = await leased(backend, 1)
    await backend.append([new_message(KEY, b"1"), new_message(KEY, b"2")])
    await backend._write(lambda d: d.execute("UPDATE messages SET body = zeroblob(3000000) WHERE seq = 2"))
    await backend._write(lambda d: d.execute("UPDATE messages SET body = x'' WHERE seq = 3"))
    large, empty = await take(handle, 2)
    assert large.fault == "the payload has 3,000,000 bytes, over the limit of 1,048,576"
    assert (large.message.body, empty.message.body, empty.fault) == (b"", b"", "")


async def test_interrupt_that_comes_after_the_deliveries_takes_none_of_them_back(path):
    async with SQLiteBackend(path) as backend:
        await backend.publish("orders.created", 1)
        handle = await backend.subscribe_exclusive("orders.created", "billing")
        make_fetch = handle._new_fetch

        def interrupted_at_its_end(*args):
            fetch = make_fetch(*args)
            fetch.future.add_done_callback(lambda _: handle.interrupt())
            return fetch

        handle._new_fetch = interrupted_at_its_end
        (delivery,) = await handle.fetch(10, HANG)
        handle._new_fetch = make_fetch
        await handle.fetch(10, 0.0)
        assert not await handle.settle([(delivery, ACKED)])


async def test_fetch_that_was_interrupted_before_it_asked_leaves_nothing_claimed(path):
    """What an interrupted fetch claimed late is taken back by the next one that asks."""
    async with SQLiteBackend(path) as backend:
        await backend.publish("orders.created", 1)
        handle = await backend.subscribe_exclusive("orders.created", "billing")
        (first,) = await handle.fetch(10, HANG)
        waiting = asyncio.create_task(handle.fetch(10, 2 * HANG))
        await backend.status()  # the thread has taken in the fetch before it answers
        handle.interrupt()
        assert not await waiting
        await backend.publish("orders.created", 2)
        (claim,) = handle._unconfirmed
        late = AcquireRequest(handle._spec, handle._owner, claim, 10, 30.0, ())
        await handle._thread.run(lambda database: ownership.acquire(database, late))
        handle.interrupt()
        assert not await handle.fetch(10, 5.0)
        assert bodies(await handle.fetch(10, 5.0)) == [b"2"]
        assert not await handle.settle([(first, ACKED)])
