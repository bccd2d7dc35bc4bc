"""`Broadcast` and `Subscriber`: one computation for all clients, and a bounded queue for each."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator

import pytest

from abe_router.http.broadcast import QUEUE_SIZE, Broadcast, Subscriber, format_event


async def test_oldest_events_of_a_slow_client_are_dropped_and_counted() -> None:
    subscriber = Subscriber(capacity=100)
    for number in range(10):
        subscriber.put(b"%d" % number * 30)
    taken = await subscriber.take()
    assert taken == format_event("dropped", {"events": 7}) + b"7" * 30 + b"8" * 30 + b"9" * 30
    subscriber.put(b"next")
    assert await subscriber.take() == b"next"


async def test_event_longer_than_the_queue_is_kept_alone() -> None:
    subscriber = Subscriber(capacity=10)
    subscriber.put(b"short")
    subscriber.put(b"x" * 100)
    assert (await subscriber.take()).endswith(b"x" * 100)


async def test_take_waits_for_an_event_and_is_empty_at_the_end() -> None:
    subscriber = Subscriber()
    taking = asyncio.create_task(subscriber.take())
    await asyncio.sleep(0)
    assert not taking.done()
    subscriber.put(b"last")
    subscriber.end()
    assert [await taking, await subscriber.take()] == [b"last", b""]


class Numbers:
    """Produces numbers on demand, and notes how often it began and ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.wanted = asyncio.Semaphore(0)

    async def produce(self) -> AsyncGenerator[bytes, None]:
        self.begun += 1
        number = 0
        try:
            while True:
                await self.wanted.acquire()
                number += 1
                yield b"%d" % number
        finally:
            self.ended += 1


async def test_events_are_produced_while_a_client_watches() -> None:
    numbers = Numbers()
    broadcast = Broadcast(numbers.produce)
    for _ in range(2):
        with broadcast.subscribe() as one, broadcast.subscribe() as two:
            numbers.wanted.release()
            assert [await one.take(), await two.take()] == [b"1", b"1"]
        assert broadcast.is_idle
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (numbers.begun, numbers.ended) == (2, 2)


async def test_client_that_comes_as_the_last_one_leaves_gets_a_new_stream() -> None:
    numbers = Numbers()
    broadcast = Broadcast(numbers.produce)
    with broadcast.subscribe():
        await asyncio.sleep(0)
    with broadcast.subscribe() as subscriber:
        await asyncio.sleep(0.01)
        numbers.wanted.release()
        assert await subscriber.take() == b"1"


async def test_later_client_begins_with_the_first_event() -> None:
    broadcast = Broadcast(Numbers().produce, first=lambda: b"all")
    with broadcast.subscribe(), broadcast.subscribe() as later:
        assert await later.take() == b"all"


async def test_bug_in_a_stream_ends_it_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def produce() -> AsyncGenerator[bytes, None]:
        yield b"one"
        raise ZeroDivisionError

    with Broadcast(produce).subscribe() as subscriber, caplog.at_level(logging.ERROR):
        assert [await subscriber.take(), await subscriber.take()] == [b"one", b""]
    assert "a stream of events failed" in caplog.text


def test_data_of_an_event_has_one_line() -> None:
    event = format_event("message", {"text": "a\nb\r\n\u2028"}, "7")
    head, _, data = event.partition(b"data: ")
    assert head == b"id: 7\nevent: message\n"
    assert json.loads(data) == {"text": "a\nb\r\n\u2028"}
    assert data.count(b"\n") == 2
    assert b"\r" not in data
    assert QUEUE_SIZE == 1024 * 1024
