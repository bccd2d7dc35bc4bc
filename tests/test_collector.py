"""The counts of all workers add up, and no counter falls when a worker ends or reloads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.process.channel import ControlChannel, Counts, decode_message, encode_message
from abe_router.process.collector import NAMES_A_MESSAGE, ROUTES_A_MESSAGE, Collector, CountsReporter
from tests.limits import HANG

A, B = "orders.created/billing", "orders.*/audit"


@dataclass(eq=False)
class Worker:
    """A worker process, as far as the collector sees it."""

    has_ended: bool = False


def handled(count: int, *, since: float = 1.0, running: int = 0) -> RouteCounts:
    return RouteCounts(since=since, outcomes={"handled": {"": count}}, running=running)


def report(process: ProcessCounts | None = None, **routes: RouteCounts) -> Counts:
    named = {{"a": A, "b": B}[name]: counts for name, counts in routes.items()}
    return Counts(named, process or ProcessCounts(), tuple(named))


def totals(collector: Collector) -> dict[str, int]:
    return {name: counts.total("handled") for name, counts in collector.counts().items()}


def test_counts_of_a_worker_that_ended_stay_and_its_replacement_adds_to_them():
    collector, first, second = Collector(), Worker(), Worker()
    collector.record(first, report(a=handled(100, running=5)))
    collector.record(second, report(a=handled(10, running=2)))
    assert totals(collector) == {A: 110}
    first.has_ended = True
    assert totals(collector) == {A: 110}
    assert collector.counts()[A].running == 2
    collector.record(Worker(), report(a=handled(1)))
    assert totals(collector) == {A: 111}


def test_counts_stay_while_no_worker_lives():
    collector, worker = Collector(), Worker()
    collector.record(worker, report(a=handled(3)))
    worker.has_ended = True
    assert totals(collector) == {A: 3}
    collector.record(Worker(), Counts({}, names=(A,)))  # its counts are still zero
    assert totals(collector) == {A: 3}


def test_a_route_disappears_once_no_living_worker_has_it():
    collector, first, second = Collector(), Worker(), Worker()
    for worker in (first, second):
        collector.record(worker, report(a=handled(5), b=handled(7)))
    collector.record(first, report(a=handled(6)))
    assert totals(collector) == {A: 11, B: 14}  # the second worker has not reloaded yet
    collector.record(second, report(a=handled(6)))
    assert totals(collector) == {A: 12}
    collector.record(first, report(a=handled(6), b=handled(0, since=9.0)))
    assert totals(collector) == {A: 12, B: 0}


def test_a_route_that_the_last_worker_with_it_takes_to_its_end_disappears():
    collector, first, second = Collector(), Worker(), Worker()
    collector.record(first, report(a=handled(5), b=handled(7)))
    collector.record(second, report(a=handled(5)))
    first.has_ended = True
    assert totals(collector) == {A: 10}


def test_a_route_removed_and_added_again_between_two_reports_does_not_fall():
    collector, first, second = Collector(), Worker(), Worker()
    collector.record(first, report(a=handled(5)))
    collector.record(second, report(a=handled(7)))
    collector.record(first, report(a=handled(1, since=2.0)))
    assert totals(collector) == {A: 13}


def test_counts_of_processes_add_up_without_what_an_ended_one_is_doing():
    collector, first = Collector(), Worker()
    collector.record(first, report(ProcessCounts(stalls=2, stalled_seconds=3.0, disconnected=4)))
    collector.record(Worker(), report(ProcessCounts(stalls=1, rejected=1)))
    first.has_ended = True
    assert collector.process_counts() == ProcessCounts(stalls=3, stalled_seconds=3.0, rejected=1)


class Channel:
    """A worker's channel, and what the supervisor has read of it."""

    def __init__(self) -> None:
        self.ours, its = socket.socketpair()
        self.ours.setblocking(False)
        self.channel = ControlChannel(1, its.detach())
        # Otherwise the end of the test would be the end of its supervisor, and of this process.
        self.channel.on_command(lambda _: None, begin=lambda: None)

    def read(self) -> list[Counts]:
        received = b""
        with suppress(BlockingIOError):
            while data := self.ours.recv(1 << 20):
                received += data
        return [decode_message(line) for line in received.splitlines(keepends=True)]


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    channel = Channel()
    yield channel
    channel.ours.close()
    channel.channel._socket.close()  # a worker keeps it until its end


async def test_a_reporter_sends_what_has_changed_and_at_last_the_rest(channel):
    counts, process = {A: handled(1), B: handled(2)}, [ProcessCounts()]
    reporter = CountsReporter(channel.channel, lambda: dict(counts), lambda: process[0])
    running = asyncio.create_task(reporter.run())
    await asyncio.sleep(0)
    assert channel.read() == [
        Counts({}, ProcessCounts(), (A, B)),
        Counts({A: handled(1), B: handled(2)}, ProcessCounts()),
    ]
    running.cancel()
    counts[B] = handled(3)
    reporter.finish()
    assert channel.read() == [Counts({B: handled(3)}, ProcessCounts())]
    reporter.finish()
    assert channel.read() == []
    del counts[A]
    process[0] = ProcessCounts(stalls=1)
    reporter.finish()
    assert channel.read() == [Counts({}, ProcessCounts(stalls=1), (B,))]
    process[0] = ProcessCounts(stalls=2)
    reporter.finish()
    assert channel.read() == [Counts({}, ProcessCounts(stalls=2))]


async def test_a_supervisor_that_does_not_read_blocks_no_event_loop_and_gets_all_counts_later(channel):
    counts = {f"orders.{n}/billing": handled(n) for n in range(40 * ROUTES_A_MESSAGE)}
    reporter = CountsReporter(channel.channel, lambda: counts, ProcessCounts)
    running = asyncio.create_task(reporter.run())
    collector, worker = Collector(), Worker()
    while channel.channel.has_room:
        await asyncio.sleep(0.01)
    async with asyncio.timeout(HANG):
        while len(collector.counts()) < len(counts):
            for message in channel.read():
                collector.record(worker, message)
            await asyncio.sleep(0.01)
    running.cancel()
    assert totals(collector) == {name: of_route.total("handled") for name, of_route in counts.items()}


async def test_names_of_many_routes_come_in_parts_that_the_channel_has_room_for(channel):
    counts = {f"orders.{n:0200}/{'billing' * 20}": handled(0) for n in range(10 * NAMES_A_MESSAGE)}
    reporter = CountsReporter(channel.channel, lambda: dict(counts), ProcessCounts)
    reporter._sent = dict(counts)  # so that names alone are sent
    running = asyncio.create_task(reporter.run())

    async def read() -> list[Counts]:
        sent: list[Counts] = []
        async with asyncio.timeout(HANG):
            while not sent or sent[-1].more:
                await asyncio.sleep(0.01)
                sent += channel.read()
        return sent

    sent = await read()
    assert max(len(encode_message(message)) for message in sent) < 64_000
    assert [name for message in sent for name in message.names or ()] == list(counts)

    collector, ended, living = Collector(), Worker(), Worker()
    every = dict.fromkeys(counts, handled(1))
    collector.record(ended, Counts(every, names=tuple(every)))
    ended.has_ended = True
    for message in sent:
        assert totals(collector) == dict.fromkeys(counts, 1)  # none is forgotten before the list is complete
        collector.record(living, message)
    removed = counts.popitem()[0]
    for message in await read():
        collector.record(living, message)
    running.cancel()
    assert totals(collector) == {name: 1 for name in every if name != removed}
