"""`tail`: messages as they are accepted, sampled, masked and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from abe_router.backend import Features, Peeked
from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import Message, new_message
from abe_router.operations import tail as module
from abe_router.operations.errors import OperationError
from abe_router.operations.tail import Tailed, tail
from abe_router.routing.contract import SchemaBinding
from abe_router.routing.table import RouteTable
from abe_router.schema import SchemaFolder
from tests.limits import HANG

SCHEMA = SchemaFolder(Path("/nowhere")).inline({"properties": {"card": {"x-sensitive": True}}}, "order")
TABLE = RouteTable(
    keys=("orders.created",), bindings=(SchemaBinding("orders.created", SCHEMA),), revision="abc"
)


async def publish(backend: MemoryBackend, *bodies: bytes, key: str = "orders.created") -> list[str]:
    messages = [new_message(key, body, headers={"tenant": "acme"}) for body in bodies]
    await backend.append(messages)
    return [message.id for message in messages]


async def take(tailing: AsyncIterator[Tailed], count: int) -> list[Tailed]:
    """Return the next messages of a tail."""
    async with asyncio.timeout(HANG):
        return [await anext(tailing) for _ in range(count)]


@pytest.fixture
async def backend() -> AsyncIterator[MemoryBackend]:
    async with MemoryBackend() as opened:
        yield opened


async def test_tail_begins_with_the_next_message_and_masks_payloads(backend: MemoryBackend) -> None:
    await publish(backend, b'{"n": 0}')
    async with aclosing(tail(backend, TABLE, "orders.#")) as tailing:
        waiting = asyncio.create_task(take(tailing, 2))
        await asyncio.sleep(0)
        ids = await publish(backend, b'{"n": 1, "card": "4711"}', b'{"n": 2}')
        seen = await waiting
    assert [each.id for each in seen] == ids
    assert [each.payload for each in seen] == [{"n": 1, "card": "(masked)"}, {"n": 2}]
    assert (seen[0].key, seen[0].headers, seen[0].state) == ("orders.created", {"tenant": "acme"}, "retained")


async def test_large_payloads_and_filters_are_read_in_a_thread(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, threads = module.masked_payload, list[bool]()

    def noted(table: RouteTable, message: Message) -> object:
        threads.append(threading.current_thread() is not threading.main_thread())
        return read(table, message)

    monkeypatch.setattr(module, "masked_payload", noted)
    await publish(backend, b'{"n": 1}', b'"%s"' % (b"x" * 2_000), b'{"n": 1}')
    async with aclosing(tail(backend, TABLE, "#", after="")) as tailing:
        await take(tailing, 3)
    assert threads == [False, True, False]
    threads.clear()
    async with aclosing(tail(backend, TABLE, "#", after="", where={"/n": 1})) as tailing:
        await take(tailing, 1)
    assert threads == [True, True, True, False]


async def test_tail_from_a_cursor_continues_after_it(backend: MemoryBackend) -> None:
    ids = await publish(backend, b"0", b"1", b"2")
    async with aclosing(tail(backend, TABLE, "#", after="")) as tailing:
        first, second = await take(tailing, 2)
    async with aclosing(tail(backend, TABLE, "#", after=second.cursor)) as tailing:
        (third,) = await take(tailing, 1)
    assert [first.id, second.id, third.id] == ids


async def test_tail_of_a_group_shows_what_is_unsettled(backend: MemoryBackend) -> None:
    handle = await backend.subscribe("orders.created", "billing")
    await publish(backend, b"0", b"1")
    await handle.fetch(1, 0)
    async with aclosing(tail(backend, TABLE, "orders.created", group="billing", after="")) as tailing:
        seen = await take(tailing, 2)
    assert [(each.state, each.deliveries) for each in seen] == [("in_flight", 1), ("ready", 0)]


async def test_where_compares_values_of_the_masked_payload(backend: MemoryBackend) -> None:
    bodies = (b'{"a": 1, "card": "4711"}', b'{"a": true, "card": "1"}', b'{"a": 1.0}', b"[]", b"no JSON")
    ids = await publish(backend, *bodies)
    for where, expected in (
        ({"/a": 1}, [0, 2]),
        ({"/a": True}, [1]),
        ({"/card": "4711"}, []),
        ({"/a": 1, "/card": "(masked)"}, [0]),
    ):
        # A key without a schema masks nothing, so this message matches and ends the tail.
        end = msgspec.json.encode({pointer[1:]: value for pointer, value in where.items()})
        (last,) = await publish(backend, end, key=f"last.{len(where)}")
        found = []
        async with (
            asyncio.timeout(HANG),
            aclosing(tail(backend, TABLE, "#", after="", where=where)) as tailing,
        ):
            while last not in found:
                found.append((await anext(tailing)).id)
        assert [ids.index(id) for id in found if id in ids] == expected


async def test_live_tail_shows_a_sample_and_counts_what_it_omits(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.2)
    async with aclosing(tail(backend, TABLE, "#", sample=50)) as tailing:
        waiting = asyncio.create_task(take(tailing, 10))
        await asyncio.sleep(0)
        ids = await publish(backend, *[b"0"] * 1_000)
        seen = await waiting
    positions = [ids.index(each.id) for each in seen]
    assert positions == sorted(positions)
    assert [each.omitted for each in seen] == [
        at - before - 1 for before, at in zip([-1, *positions], positions, strict=False)
    ]
    assert not any(each.skipped for each in seen)


async def test_tail_that_falls_behind_goes_to_the_end(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 10)
    async with aclosing(tail(backend, TABLE, "#", sample=10)) as tailing:
        waiting = asyncio.create_task(take(tailing, 1))
        await asyncio.sleep(0)
        await publish(backend, *[b"0"] * 500)
        await waiting
        # It holds what it has read: 80 messages at most. The others are behind it.
        after = asyncio.create_task(take(tailing, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (late,) = await publish(backend, b"1")
        (seen,) = await after
    assert (seen.id, seen.skipped) == (late, True)


async def test_tail_that_catches_up_omits_nothing(
    backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 10)
    ids = await publish(backend, *[b"0"] * 200)
    async with aclosing(tail(backend, TABLE, "#", after="", sample=10_000)) as tailing:
        seen = await take(tailing, 200)
    assert [each.id for each in seen] == ids
    assert {(each.omitted, each.skipped) for each in seen} == {(0, False)}


async def test_viewer_sees_neither_payload_nor_headers(backend: MemoryBackend) -> None:
    await publish(backend, b'{"n": 1}')
    async with aclosing(tail(backend, TABLE, "#", after="", payloads=False)) as tailing:
        (seen,) = await take(tailing, 1)
    assert (seen.payload, seen.headers) == (msgspec.UNSET, {})
    assert b"payload" not in msgspec.json.encode(seen)


async def test_payload_is_masked_without_a_schema_to_tell_what_is_sensitive(backend: MemoryBackend) -> None:
    await publish(backend, b'{"n": 1}')
    await publish(backend, b"no JSON", key="orders.created")
    await publish(backend, b"no JSON \x1b", key="others")
    async with aclosing(tail(backend, RouteTable(), "#", after="")) as tailing:
        assert (await take(tailing, 1))[0].payload == "(masked)"
    async with aclosing(tail(backend, TABLE, "#", after="")) as tailing:
        payloads = [each.payload for each in await take(tailing, 3)]
    assert payloads == [{"n": 1}, "(masked)", "no JSON \x1b"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"pattern": "orders..x"}, "not a key or a pattern"),
        ({"pattern": "#", "group": "a/b"}, "not a group"),
        ({"pattern": "#", "where": {"total": 1}}, "not a JSON pointer"),
        ({"pattern": "#", "where": {"/total": 1}, "payloads": False}, "right to see payloads"),
    ],
)
async def test_faulty_arguments_are_refused(backend: MemoryBackend, arguments: dict, error: str) -> None:
    with pytest.raises(OperationError, match=error):
        await anext(tail(backend, TABLE, **arguments))


async def test_backend_that_cannot_peek_is_refused() -> None:
    class Plain(MemoryBackend):
        features = Features(peek=False)

    with pytest.raises(OperationError, match="cannot show messages"):
        await anext(tail(Plain(), TABLE, "#"))


async def test_cursor_that_the_backend_refuses_is_an_error_of_the_operation() -> None:
    class Strict(MemoryBackend):
        async def peek(self, *_: object, **__: object) -> Sequence[Peeked]:
            raise ValueError("`after` is not a cursor of `peek`")

    with pytest.raises(OperationError, match="not a cursor"):
        await anext(tail(Strict(), TABLE, "#", after="x"))


async def test_key_of_another_program_shows_no_payload(backend: MemoryBackend) -> None:
    await backend.append([Message("1", "not a key", b'{"card": 1}')])
    async with aclosing(tail(backend, TABLE, "#", after="")) as tailing:
        assert (await take(tailing, 1))[0].payload == "(masked)"
