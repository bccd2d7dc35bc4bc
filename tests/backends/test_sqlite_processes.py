"""Several processes on one SQLite file: sharing messages, waking each other, and the cost of waiting."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from statistics import median

import pytest

from abe_router.backend import ACKED, RELEASED, Delayed
from abe_router.backends.sqlite import SQLiteBackend
from tests.limits import HANG

KEY, GROUP = "orders.created", "billing"
#: Publishes its time for each line of standard input.
PUBLISHER = """
import asyncio, sys, time
from pathlib import Path
from abe_router.backends.sqlite import SQLiteBackend

async def main():
    async with SQLiteBackend(Path(sys.argv[1])) as backend:
        while await asyncio.to_thread(sys.stdin.readline):
            await backend.publish(sys.argv[2], time.time())

asyncio.run(main())
"""


@pytest.fixture
async def start():
    """Return a function that starts a Python process; each is killed at the end."""
    started = []

    async def start(*arguments):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=pipe, stdout=pipe)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def worker(path, lease, limit):
    return (
        "-m",
        "abe_router.conformance.worker",
        f"sqlite:///{path}",
        "",
        KEY,
        GROUP,
        str(lease),
        str(limit),
    )


async def test_each_message_goes_to_one_process_of_a_group(path, backend, start):
    await backend.subscribe(KEY, GROUP)
    workers = [await start(*worker(path, 30, 0)) for _ in range(3)]
    sent = [await backend.publish(KEY, n) for n in range(300)]
    lines = Counter()

    async def listen(process):
        while lines.total() < 2 * len(sent):
            lines[(await process.stdout.readline()).decode().strip()] += 1

    listening = [asyncio.create_task(listen(process)) for process in workers]
    await asyncio.wait(listening, return_when=asyncio.FIRST_COMPLETED)
    for each in listening:
        each.cancel()
    assert lines == Counter(f"{what} {message.id}" for what in "SE" for message in sent)


@pytest.mark.alone
async def test_waiting_fetch_gets_what_a_killed_process_held(path, backend, start, control):
    handle = await backend.subscribe(KEY, GROUP)
    sent = [await backend.publish(KEY, n) for n in range(3)]
    process = await start(*worker(path, 0.5, 3))
    for _ in sent:
        await process.stdout.readline()
    waiting = asyncio.create_task(handle.fetch(10, 2 * HANG))
    process.kill()
    killed = time.time()
    came = await waiting
    assert control.since(killed) < 0.5 + 0.5
    assert [(d.message.id, d.deliveries, d.message.attempt) for d in came] == [(m.id, 2, 1) for m in sent]


@pytest.mark.alone
async def test_message_of_another_process_wakes_a_fetch_within_50_ms(path, backend, start):
    handle, elsewhere = await backend.subscribe(KEY, GROUP), await backend.subscribe("a.#", GROUP)
    other = asyncio.create_task(elsewhere.fetch(1, 2 * HANG))
    process = await start("-c", PUBLISHER, path, KEY)
    latencies = []
    for _ in range(9):
        waiting = asyncio.create_task(handle.fetch(1, 2 * HANG))
        # Long enough for the notifier to poll at its longest interval.
        await asyncio.sleep(0.1)
        process.stdin.write(b"\n")
        (delivery,) = await waiting
        latencies.append(time.time() - delivery.message.payload)
        await handle.settle([(delivery, ACKED)])
    assert median(latencies) < 0.05
    assert not other.done()
    elsewhere.interrupt()
    await other


@pytest.mark.alone
async def test_release_or_delay_of_another_connection_wakes_a_fetch(path, backend, control):
    holder = SQLiteBackend(path)
    held, handle = await holder.subscribe(KEY, GROUP), await backend.subscribe(KEY, GROUP)
    for outcome, delay in ((RELEASED, 0.0), (Delayed(0.1), 0.1)):
        await backend.publish(KEY, 1)
        (delivery,) = await held.fetch(1, HANG)
        waiting = asyncio.create_task(handle.fetch(1, 2 * HANG))
        await asyncio.sleep(0.05)
        began = time.time()
        assert not await held.settle([(delivery, outcome)])
        (again,) = await waiting
        assert time.time() - began >= delay
        assert control.since(began) < delay + 0.25
        assert not await handle.settle([(again, ACKED)])
    await holder.close()


async def test_thousand_waiting_fetches_cost_almost_nothing(path, backend, start):
    patterns = [f"topic.k{n}" if n % 10 else f"topic.k{n}.#" for n in range(1000)]
    handles = await asyncio.gather(*(backend.subscribe(pattern, GROUP) for pattern in patterns))
    waiting = [asyncio.create_task(handle.fetch(1, 2 * HANG)) for handle in handles]
    process = await start("-c", PUBLISHER, path, "topic.k1")
    process.stdin.write(b"\n")
    (delivery,) = await waiting[1]
    began = time.process_time()
    await asyncio.sleep(1.0)
    assert time.process_time() - began < 0.05
    assert delivery.message.key == "topic.k1"
    for handle in handles:
        handle.interrupt()
    assert sum(len(fetched) for fetched in await asyncio.gather(*waiting)) == 1
