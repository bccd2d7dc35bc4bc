"""What the server samples for its pages: rates, from reports or counters, and the last status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from abe_router.backend import Entry, Features
from abe_router.errors import BackendUnavailable
from abe_router.http import sampler as module
from abe_router.http.sampler import Sampler
from abe_router.observe.tally import ProcessCounts, RouteCounts
from abe_router.operations.status import Status
from abe_router.operations.subscriptions import SubscriptionState
from abe_router.runtime.activity import RouteActivity
from abe_router.runtime.heartbeat import WorkerReport
from tests.limits import HANG

STATUS = Status("memory://", "r", (SubscriptionState("a/b", True, ready=7),), {})


@dataclass
class Reports:
    """A backend that has the reports of workers alone."""

    features: Features = field(default_factory=Features)
    entries_now: dict[str, Entry] = field(default_factory=dict)
    error: Exception | None = None
    asked: int = 0

    async def entries(self, bucket: str) -> dict[str, Entry]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.entries_now

    def report(self, revision: int, handled: int) -> None:
        activity = {"a/b": RouteActivity(handled=handled)}
        report = WorkerReport("host", 7, 1.0, "r", number=1, interval=3.0, activity=activity)
        self.entries_now = {"one": Entry(msgspec.json.encode(report), revision)}


class Counted:
    """Counts of the consumers of this process."""

    handled = 0

    def counts(self) -> dict[str, RouteCounts]:
        return {"a/b": RouteCounts(since=1.0, outcomes={"handled": {"": self.handled}})}

    def process_counts(self) -> ProcessCounts:
        return ProcessCounts()


async def known() -> Status:
    return STATUS


def sampler_of(
    backend: Any, counters: Any = None, status: Callable[[], Awaitable[Status]] = known
) -> Sampler:
    return Sampler(lambda: backend, lambda: counters, status)


async def test_each_report_counts_once() -> None:
    backend = Reports()
    sampler = sampler_of(backend)
    backend.report(1, 30)
    await sampler.sample()
    await sampler.sample()
    once = sampler.history.figures("a/b").rate
    assert once == pytest.approx(10.0, rel=0.01)
    backend.report(2, 60)
    await sampler.sample()
    assert sampler.history.figures("a/b").rate == pytest.approx(3 * once, rel=0.01)
    assert [worker.label for worker in sampler.watch.workers()] == ["worker 1"]


async def test_consumers_of_this_process_count_where_there_are_no_reports() -> None:
    backend, counters = Reports(Features(key_value=False)), Counted()
    sampler = sampler_of(backend, counters)
    await sampler.sample()
    counters.handled = 12
    await sampler.sample()
    assert sampler.history.figures("a/b").rate > 0
    assert backend.asked == 0


async def test_reading_is_the_last_one_while_the_backend_is_away() -> None:
    answers: list[Status | Exception] = [
        BackendUnavailable("no route to redis://user:secret@host"),
        STATUS,
        BackendUnavailable("connection refused"),
    ]

    async def status() -> Status:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    sampler = sampler_of(Reports(), status=status)
    first = await sampler.read()
    assert (first.status, first.failure) == (None, "no route to redis://***@host")
    second = await sampler.read()
    assert (second.status, second.failure) == (STATUS, "")
    third = await sampler.read()
    assert (third.status, third.failure) == (STATUS, "connection refused")
    assert third.read_at == second.read_at
    assert sampler.reading == second


async def test_page_does_not_wait_for_a_slow_backend_that_has_answered_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE_PATIENCE", 0.01)
    is_slow = False

    async def status() -> Status:
        if is_slow:
            await asyncio.Event().wait()
        return STATUS

    sampler = sampler_of(Reports(), status=status)
    await sampler.read()
    is_slow = True
    assert (await sampler.read()).failure == "the backend does not answer"


async def test_sampling_goes_on_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.0)
    backend = Reports(error=BackendUnavailable("refused"))
    sampler = sampler_of(backend)
    task = asyncio.create_task(sampler.run())
    try:
        async with asyncio.timeout(HANG):
            while backend.asked < 2:
                await asyncio.sleep(0)
            assert caplog.records == []
            backend.error = ValueError("a bug")
            while not caplog.records:
                await asyncio.sleep(0)
            backend.error = None
            backend.report(1, 30)
            while not sampler.watch.workers():
                await asyncio.sleep(0)
    finally:
        task.cancel()
    assert "cannot sample what the routes do" in caplog.text
