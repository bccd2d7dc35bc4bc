"""Worker slots: delays between restarts, stops, and replacement by a worker with new code."""

from __future__ import annotations

import asyncio
import itertools

from abe_router.process import slot as slots
from abe_router.process.slot import WorkerProcess, WorkerSlot
from tests.limits import HANG


async def start_command(*command: str) -> WorkerProcess:
    return await WorkerProcess.start(1, lambda number, fd, later: command, lambda worker, message: None)


async def test_the_delay_before_a_worker_that_keeps_ending_grows(monkeypatch):
    monkeypatch.setattr(slots, "FIRST_DELAY", 0.02)
    monkeypatch.setattr(slots, "LONGEST_DELAY", 0.08)
    starts, enough, stopping = [], asyncio.Event(), asyncio.Event()

    async def start() -> WorkerProcess:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) == 6:
            enough.set()
        return await start_command("false")

    keeping = asyncio.create_task(WorkerSlot(start, stopping).keep())
    async with asyncio.timeout(HANG):
        await enough.wait()
        stopping.set()
        assert await keeping == 1
    delays = [after - before for before, after in itertools.pairwise(starts)]
    assert all(delay >= least for delay, least in zip(delays, [0.02, 0.04, 0.08, 0.08, 0.08], strict=True))


async def test_a_stop_while_no_worker_runs_returns_success(monkeypatch, caplog):
    monkeypatch.setattr(slots, "FIRST_DELAY", 60.0)
    stopping = asyncio.Event()

    async def start() -> WorkerProcess:
        return await start_command("false")

    keeping = asyncio.create_task(WorkerSlot(start, stopping).keep())
    async with asyncio.timeout(HANG):
        while "another starts" not in caplog.text:
            await asyncio.sleep(0.01)
        stopping.set()
        assert await keeping == 0


async def test_a_stop_waits_for_a_worker_with_new_code_that_started_while_the_slot_was_empty(
    monkeypatch, caplog
):
    monkeypatch.setattr(slots, "FIRST_DELAY", 60.0)
    stopping, scripts = asyncio.Event(), iter(["exit 1", "read line; exit 3"])

    async def start() -> WorkerProcess:
        script = next(scripts)
        worker = await start_command("sh", "-c", script)
        worker.has_run = "3" in script
        worker.settled.set()
        return worker

    slot = WorkerSlot(start, stopping)
    keeping = asyncio.create_task(slot.keep())
    async with asyncio.timeout(HANG):
        while "another starts" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await slot.replace()
        stopping.set()
        assert await keeping == 3


async def test_a_stop_ends_the_attempts_to_start_a_worker(monkeypatch):
    monkeypatch.setattr(slots, "FIRST_DELAY", 0.01)
    attempts, stopping = [], asyncio.Event()

    async def start() -> WorkerProcess:
        attempts.append(1)
        if len(attempts) == 3:
            stopping.set()
        raise OSError("no more processes")

    async with asyncio.timeout(HANG):
        assert await WorkerSlot(start, stopping).keep() == 0
    assert len(attempts) == 3
