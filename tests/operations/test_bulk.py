"""`LineSplitter` and `BulkPublisher`: a stream of lines, published in batches."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from abe_router.backends.memory import MemoryBackend
from abe_router.errors import BackendUnavailable
from abe_router.messages.message import Message
from abe_router.operations.bulk import MAX_LINE, BulkPublisher, BulkResult, Line, LineSplitter
from abe_router.operations.errors import OutcomeUnknown
from abe_router.routing.table import RouteTable

TABLE = RouteTable(keys=("orders.created", "orders.paid"))


def split(*chunks: bytes) -> list[Line]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()


@given(st.lists(st.binary(max_size=8)))
def test_lines_do_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assume(not whole.startswith(BOM_UTF8))
    expected = [
        Line(number, text.strip()) for number, text in enumerate(whole.split(b"\n"), 1) if text.strip()
    ]
    assert split(*chunks) == expected


def test_byte_order_mark_is_removed() -> None:
    assert split(BOM_UTF8 + b"1\n2") == [Line(1, b"1"), Line(2, b"2")]


def test_line_over_the_limit_is_not_kept() -> None:
    half = b"x" * (MAX_LINE // 2 + 1)
    splitter = LineSplitter()
    assert splitter.feed(b"a\n" + half) == [Line(1, b"a")]
    assert splitter.feed(half) == []
    assert splitter.feed(half) == []
    assert splitter.feed(b"x\nb\n") == [Line(2, None), Line(3, b"b")]
    assert splitter.finish() == []


async def test_lines_are_published_in_order_and_rejected_lines_are_returned() -> None:
    publisher = BulkPublisher(TABLE, headers={"source": "test", "a": "0"})
    batch = publisher.prepare(
        [
            Line(1, b'{"key": "orders.created", "payload": 1, "headers": {"a": "b"}, "id": "one"}'),
            Line(3, b'{"key": "orders.lost", "payload": 2}'),
            Line(4, b"not json"),
            Line(5, None),
            Line(6, b'{"key": "orders.paid", "payload": 1.10}'),
        ]
    )
    assert [(rejected.line, rejected.key) for rejected in batch.rejected] == [
        (3, "orders.lost"),
        (4, None),
        (5, None),
    ]
    async with MemoryBackend() as backend:
        subscription = await backend.subscribe("orders.#", "billing")
        await publisher.append(backend, batch)
        first, last = [delivery.message for delivery in await subscription.fetch(10, 1)]
    assert (first.id, first.headers) == ("one", {"source": "test", "a": "b"})
    assert last.body == b"1.10"
    assert publisher.result == BulkResult(published=2, rejected=3)


def test_prepare_stops_behind_a_line_when_its_time_is_over() -> None:
    publisher = BulkPublisher(TABLE, key="orders.paid")
    lines = [Line(2, b"1"), Line(4, b"no"), Line(5, b"2")]
    first = publisher.prepare(lines, seconds=-1)
    rest = publisher.prepare(lines[first.size :])
    assert (first.first, first.last, first.size, first.numbers) == (2, 2, 1, (2,))
    assert (rest.first, rest.last, rest.size, rest.numbers) == (4, 5, 2, (5,))


async def test_failure_of_the_backend_makes_the_outcome_of_the_batch_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self: MemoryBackend, messages: Sequence[Message]) -> None:
        raise BackendUnavailable("the connection was lost")

    monkeypatch.setattr(MemoryBackend, "append", fail)
    publisher = BulkPublisher(TABLE, key="orders.paid")
    batch = publisher.prepare([Line(7, b"1"), Line(9, b"2")])
    async with MemoryBackend() as backend:
        with pytest.raises(OutcomeUnknown) as raised:
            await publisher.append(backend, batch)
    error = raised.value
    assert (error.first, error.last, error.count, error.window) == (7, 9, 2, 0.0)
    assert publisher.result == BulkResult(unknown=2)
