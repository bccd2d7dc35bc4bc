"""Background tasks are started again after an error, with backoff, and never end anything else."""

from __future__ import annotations

import asyncio

import pytest

from abe_router.runtime import background
from abe_router.runtime.background import BackgroundTasks
from tests.limits import HANG


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch):
    monkeypatch.setattr(background, "FIRST_DELAY", 0.001)
    monkeypatch.setattr(background, "LONGEST_DELAY", 0.002)


async def test_a_task_that_fails_is_logged_with_its_traceback_and_started_again(caplog):
    runs, tasks = asyncio.Queue(), BackgroundTasks()

    async def work():
        runs.put_nowait(1)
        raise LookupError("unforeseen")

    tasks.start("the watch", work)
    async with asyncio.timeout(HANG):
        for _ in range(5):
            await runs.get()
    await tasks.stop()
    assert caplog.text.count("the watch failed, next try in ") == 1
    assert 'raise LookupError("unforeseen")' in caplog.text


async def test_a_task_that_fails_does_not_affect_another():
    runs, tasks = asyncio.Queue(), BackgroundTasks()

    async def fails():
        raise LookupError("unforeseen")

    async def works():
        while True:
            runs.put_nowait(1)
            await asyncio.sleep(0.001)

    tasks.start("one", fails)
    tasks.start("another", works)
    async with asyncio.timeout(HANG):
        for _ in range(10):
            await runs.get()
    await tasks.stop()


async def test_a_task_that_returns_is_not_started_again():
    runs, tasks = [], BackgroundTasks()

    async def work():
        runs.append(1)

    tasks.start("once", work)
    await asyncio.sleep(0.02)
    await tasks.stop()
    assert runs == [1]


async def test_a_failure_after_a_long_run_is_logged_again(caplog):
    runs, tasks = asyncio.Queue(), BackgroundTasks()

    async def work():
        runs.put_nowait(1)
        await asyncio.sleep(0.01)  # longer than the longest delay
        raise LookupError("unforeseen")

    tasks.start("the watch", work)
    async with asyncio.timeout(HANG):
        for _ in range(3):
            await runs.get()
    await tasks.stop()
    assert caplog.text.count("the watch failed") == 2


async def test_stop_cancels_the_tasks_and_waits_for_them():
    ended, tasks = [], BackgroundTasks()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    tasks.start("the watch", work)
    await asyncio.sleep(0)
    await tasks.stop()
    await tasks.stop()
    assert ended == [1]
