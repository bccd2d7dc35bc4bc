"""The dead letters of a backend: list, find, replay, purge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from abe_router.backend import Backend, Dead, DeadLetter, Reason
from abe_router.backends.memory import MemoryBackend
from abe_router.messages.message import Message, new_message
from abe_router.operations import dead_letters
from abe_router.operations.audit import Author, acts
from abe_router.operations.dead_letters import DeadLetterFilter, Moved, detail
from abe_router.operations.errors import UnknownDeadLetter
from abe_router.operations.fingerprint import fingerprint
from abe_router.routing.table import RouteTable

ROUTE = ("orders.created", "billing")
REASON = Reason("rejected", "Reject", "nothing to charge")


@pytest.fixture
async def backend(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Backend]:
    """Return a backend with five dead letters of one route, read in pages of two."""
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    async with MemoryBackend() as backend:
        subscription = await backend.subscribe(*ROUTE)
        await backend.append([new_message(ROUTE[0], b"%d" % number) for number in range(5)])
        deliveries = await subscription.fetch(5, 1)
        await subscription.settle(
            [
                (d, Dead(DeadLetter("/".join(ROUTE), d.message, REASON, 1, 1, 1.0, 2.0, "9f2c4b")))
                for d in deliveries
            ]
        )
        yield backend


async def test_list_reads_every_page_oldest_first(backend: Backend) -> None:
    found = (await dead_letters.list_dead_letters(backend, ROUTE)).dead_letters
    assert len({summary.id for summary in found}) == 5
    assert (await dead_letters.list_dead_letters(backend)).dead_letters == found
    assert "payload" not in msgspec.to_builtins(found[0])
    rest = [each.id async for each in dead_letters.read_dead_letters(backend, ROUTE, after=found[2].id)]
    assert rest == [summary.id for summary in found[3:]]


async def test_list_reads_no_more_pages_than_its_limit_takes(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (await dead_letters.list_dead_letters(backend, ROUTE)).dead_letters
    calls, read = [], backend.dead_letters

    async def counted(*args: Any, **options: Any) -> Any:
        calls.append(options["after"])
        return await read(*args, **options)

    monkeypatch.setattr(backend, "dead_letters", counted)
    first = await dead_letters.list_dead_letters(backend, ROUTE, limit=1)
    assert (first.dead_letters, first.more, len(calls)) == (whole[:1], True, 1)
    rest = await dead_letters.list_dead_letters(backend, ROUTE, limit=4, after=whole[0].id)
    assert (rest.dead_letters, rest.more) == (whole[1:], False)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (DeadLetterFilter(), 5),
        (DeadLetterFilter(kind="rejected", key="orders.*", since=2.0), 5),
        (DeadLetterFilter(kind="failed"), 0),
        (DeadLetterFilter(key="payments.#"), 0),
        (DeadLetterFilter(since=2.1), 0),
        (DeadLetterFilter(until=1.9), 0),
        (DeadLetterFilter(group=fingerprint(REASON), revision="9f", until=2.0), 5),
        (DeadLetterFilter(group="v1-0000000000"), 0),
        (DeadLetterFilter(revision="f2c4"), 0),
    ],
)
async def test_filter_accepts_what_satisfies_all_conditions(
    backend: Backend, where: DeadLetterFilter, count: int
) -> None:
    assert len((await dead_letters.list_dead_letters(backend, ROUTE, where=where)).dead_letters) == count


async def test_filter_finds_the_dead_letter_of_a_message(backend: Backend) -> None:
    whole = (await dead_letters.list_dead_letters(backend, ROUTE)).dead_letters
    where = DeadLetterFilter(message_id=whole[3].message_id)
    assert (await dead_letters.list_dead_letters(backend, where=where)).dead_letters == whole[3:4]


async def test_find_returns_one_or_raises(backend: Backend) -> None:
    last = (await dead_letters.list_dead_letters(backend, ROUTE)).dead_letters[-1]
    found = await dead_letters.find_dead_letter(backend, ROUTE, last.id)
    assert found.message.body == b"4"
    with pytest.raises(UnknownDeadLetter) as raised:
        await dead_letters.find_dead_letter(backend, ROUTE, "nonsense")
    assert raised.value.hint


async def test_purge_counts_what_is_missing_and_records_the_act(backend: Backend) -> None:
    ids = [each.id async for each in dead_letters.read_dead_letters(backend, ROUTE)]
    author = Author("ada@host", "command line")
    moved = await dead_letters.purge(backend, ROUTE, [*ids[:3], "nonsense"], author=author, why="test data")
    assert (moved, moved.missing) == (Moved(4, 3), 1)
    assert len((await dead_letters.list_dead_letters(backend, ROUTE)).dead_letters) == 2
    (act,) = await acts(backend)
    assert (act.author, act.action, act.target) == ("ada@host", "dead purge", "orders.created/billing")
    assert (act.why, act.result) == ("test data", "purged 3 of 4")


def test_detail_keeps_json_exact_and_escapes_other_bytes() -> None:
    def encoded(body: bytes) -> object:
        reason = Reason("malformed", "PayloadMalformed", "payload is not JSON")
        dead_letter = DeadLetter("a/b", Message("1", "a", body), reason, 1, 1, 0.0, 0.0, id="1")
        shown = detail(dead_letter, RouteTable(backend="memory://", revision="1"))
        return msgspec.json.decode(msgspec.json.encode(shown))["payload"]

    assert encoded(b"12345678901234567890123") == 12345678901234567890123
    assert encoded(b"{\xff\x1b") == "{\\xff\x1b"
