"""Rows of a SQLite file that another program damaged or deleted: none hides or stops its neighbours."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3

import pytest

from abe_router.backend import ACKED
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.errors import BackendError
from abe_router.messages.message import MAX_BYTES, new_message
from abe_router.operations.dead_letters import list_dead_letters
from tests.limits import HANG

from .deliveries import as_dead, bodies, take

GROUP = "g"
#: Headers over the limit of what is read.
TEXT = '{"a": "' + "x" * 3_000_000 + '"}'
#: Values that no column expects: text, bytes, infinity, text that is not UTF-8, and a negative number.
ODD = ("'abc'", "x'ff00'", "9e999", "CAST(x'ff41' AS TEXT)", "-1")
#: By table, the columns that another program may have written, and how the damaged row is found.
COLUMNS = {
    "keys": (("prefix", "key"), "key = 'odd'"),
    "messages": (("published_at", "id", "headers", "body", "key_id"), "id IN ('odd', 'odd-dead')"),
    "subscriptions": (("pattern", '"group"', "cursor", "claimed"), "pattern = 'odd'"),
    "deliveries": (
        ("claim", "due_at", "deliveries", "failures", "failed_at", "retry_at"),
        "sid = (SELECT sid FROM subscriptions WHERE pattern = 'odd')",
    ),
    "dead_letters": (("content", "seq"), "id = 1"),
    "owners": (("owner", "expires_at"), "sid = (SELECT sid FROM subscriptions WHERE pattern = 'odd')"),
    "entries": (("bucket", "name", "value", "expires_at"), "name = 'odd'"),
    "rates": (("name", "used_until"), "name = 'odd'"),
    "retention": (("pattern", "seconds", "expires_at"), "pattern = 'odd'"),
    "dedupe_ids": (("id", "expires_at"), "id = 'odd'"),
}


async def fill(path):
    """Fill each table with rows for the key `odd` and for the key `even`."""
    async with SQLiteBackend(path) as backend:
        odd = await backend.subscribe_exclusive("odd", GROUP)
        await backend.subscribe("even", GROUP)
        every = await backend.subscribe("#", GROUP)
        for key in ("odd", "even"):
            await backend.publish(key, "dead", id=f"{key}-dead")
        found = await every.fetch(10, 1)
        assert not await every.settle([(delivery, as_dead(delivery)) for delivery in found])
        for key in ("odd", "even"):
            await backend.publish(key, 1, id=key)
            await backend.put("workers", key, b"{}")
            await backend.take_tokens(key, 100.0, 1)
        await odd.fetch(1, 1)
        await backend.trim({"odd": 60.0, "even": 60.0})
    with sqlite3.connect(path) as other:
        other.execute("INSERT INTO dedupe_ids VALUES (1, 'odd', 9e9)")
    other.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("filled") / "queue.db"
    asyncio.run(fill(path))
    return path


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, (columns, _) in COLUMNS.items() for column in columns]
)
async def test_odd_value_hides_and_stops_no_neighbour(tmp_path, filled, table, column):
    for number, value in enumerate(ODD):
        path = tmp_path / f"queue-{number}.db"
        shutil.copy(filled, path)
        with sqlite3.connect(path) as other:
            statement = f"UPDATE {table} SET {column} = {value} WHERE {COLUMNS[table][1]}"
            if not other.execute(statement).rowcount:
                pytest.fail(f"`{statement}` changes nothing")
        other.close()
        async with asyncio.timeout(HANG):
            await check_neighbours(path)


async def check_neighbours(path):
    """Use everything of the key `even`, and some of the damaged key `odd`."""
    async with SQLiteBackend(path) as backend:
        statuses = {status.name: status for status in await backend.status()}
        assert statuses["even/g"].ready == 2
        dead = await backend.dead_letters("#", GROUP)
        assert len(dead) == 2
        assert (dead[-1].message.id, dead[-1].reason.message) == ("even-dead", "no stock")
        for pattern in ("odd", "even", "#"):
            await backend.peek(pattern, GROUP)
            await backend.peek(pattern, None)
        assert "even" in await backend.entries("workers")
        await backend.take_tokens("odd", 100.0, 1)
        await backend.trim({"odd": 60.0})
        even, every = await backend.subscribe("even", GROUP), await backend.subscribe("#", GROUP)
        odd = await backend.subscribe_exclusive("odd", GROUP)
        waiting = asyncio.create_task(odd.fetch(10, 0.03))
        came = await even.fetch(10, 1)
        assert bodies(came) == [b'"dead"', b"1"]
        assert not await even.settle([(delivery, ACKED) for delivery in came])
        await backend.publish("even", 2, id="later")
        for handle in (even, every):
            assert "later" in [delivery.message.id for delivery in await handle.fetch(10, 1)]
        await waiting
        health = {result.code: result for result in await backend.check_health({("even", GROUP)})}
        assert "D110" in health or "D201" in health
        assert await backend.replay("#", GROUP, [letter.id for letter in dead]) >= 1


@pytest.mark.parametrize(
    ("column", "value"), [("id", 2**63 - 1), ("content", '{"x":' + '{"a":' * 3000 + "1" + "}" * 3001)]
)
async def test_dead_letter_with_the_largest_id_or_a_deep_record_is_listed_once(
    tmp_path, filled, column, value
):
    path = tmp_path / "queue.db"
    shutil.copy(filled, path)
    with sqlite3.connect(path) as other:
        other.execute(f"UPDATE dead_letters SET {column} = ? WHERE id = 2", [value])
    other.close()
    async with SQLiteBackend(path) as backend:
        listed = (await list_dead_letters(backend, ("#", GROUP))).dead_letters
        assert len(listed) == 2
        assert await backend.purge("#", GROUP, [dead.id for dead in listed]) == 2


async def test_file_whose_schema_is_no_text_is_damaged(tmp_path, filled):
    path = tmp_path / "queue.db"
    shutil.copy(filled, path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA writable_schema = ON")
        other.execute("UPDATE sqlite_master SET sql = CAST(x'ff9f' AS TEXT) WHERE name = 'entries'")
    other.close()
    with pytest.raises(BackendError, match=r"damaged|malformed"):
        async with SQLiteBackend(path) as backend:
            await backend.status()


async def test_message_that_was_deleted_becomes_a_dead_letter(tmp_path, caplog):
    path = tmp_path / "queue.db"
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe("a", GROUP)
        for n in range(3):
            await backend.publish("a", n)
        found = await handle.fetch(3, 1)
        await handle.settle([(found[0], as_dead(found[0]))])
        await handle.close()
        await backend._write(lambda d: d.execute("DELETE FROM messages WHERE seq < 3"))
        await backend._write(lambda d: d.execute("UPDATE deliveries SET due_at = 0"))
        again = await (await backend.subscribe("a", GROUP)).fetch(3, 1)
        assert bodies(again) == [b"2"]
        dead = await backend.dead_letters("a", GROUP)
        assert [letter.reason.error for letter in dead] == ["MessageDeleted"] * 2
        assert dead[0].message.id == found[0].message.id
        assert "another program deleted 1 message before the delivery" in caplog.text
        (status,) = await backend.status()
        assert (status.ready, status.in_flight, status.dead) == (0, 1, 2)


async def test_payload_over_the_limit_is_never_read(tmp_path):
    """Another program wrote it. A payload at its limit, as all of ours are, is read whole."""
    path, largest = tmp_path / "a.db", b"1" * MAX_BYTES
    async with SQLiteBackend(path) as backend:
        handle = await backend.subscribe("odd", GROUP)
        await backend.append([new_message("odd", largest, id="whole"), new_message("odd", b"1", id="large")])
        with sqlite3.connect(path) as other:
            other.execute(
                "UPDATE messages SET body = zeroblob(3000000), headers = ? WHERE id = 'large'", (TEXT,)
            )
        other.close()
        whole, large = await take(handle, 2)
        assert (whole.message.body, whole.fault) == (largest, "")
        assert (large.message.body, large.message.headers) == (b"", {})
        assert large.fault == "the payload has 3,000,000 bytes, over the limit of 1,048,576"
        assert [len(each.message.body) for each in await backend.peek("odd", GROUP)] == [MAX_BYTES, 0]
        assert not await handle.settle([(whole, ACKED), (large, as_dead(large))])
        (dead_letter,) = await backend.dead_letters("odd", GROUP)
        assert (dead_letter.message.id, dead_letter.message.body) == ("large", b"")
        assert await backend.replay("odd", GROUP, [dead_letter.id]) == 1
        (again,) = await take(handle, 1)
        assert again.fault == large.fault
