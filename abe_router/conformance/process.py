"""Several processes share a prefix, and one of them is killed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from unittest import SkipTest

from abe_router.conformance.harness import GROUP, KEY, Harness
from abe_router.conformance.suite import Suite, check

#: Deliveries that the killed worker holds.
HELD = 10


class ProcessTests(Suite):
    """Real processes, and SIGKILL."""

    @check("processes", "leases")
    async def test_killed_process_loses_nothing(self, harness: Harness) -> None:
        """A bug loses what the killed process held; or it duplicates more than that."""
        if not self.url:
            raise SkipTest("other processes need a URL")
        handle = await harness.subscribe()
        sent = await harness.publish(300)
        started: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        progress = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            killed = await self._worker(harness, HELD)
            reading = group.create_task(_read(killed, started, ended, progress))
            while started.total() < HELD:
                progress.clear()
                await progress.wait()
            killed.kill()
            await reading
            assert (started.total(), ended.total()) == (HELD, 0)
            workers = [await self._worker(harness, 0) for _ in range(2)]
            for worker in workers:
                group.create_task(_read(worker, started, ended, progress))
            while len(ended) < len(sent):
                progress.clear()
                await progress.wait()
            for worker in workers:
                worker.kill()
        assert ended == Counter(message.id for message in sent)
        assert started.total() - len(sent) <= HELD
        assert await harness.counts() == (0, 0, 0, 0)
        await handle.close()

    @check("processes", "order")
    async def test_killed_process_changes_no_order(self, harness: Harness) -> None:
        """A bug reorders what the killed process held, or what is behind it while others take over."""
        if not self.url:
            raise SkipTest("other processes need a URL")
        sent = [message.id for message in await harness.publish(200)]
        started: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        progress = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            killed = await self._worker(harness, HELD, "exclusive")
            reading = group.create_task(_read(killed, started, ended, progress))
            while started.total() < HELD:
                progress.clear()
                await progress.wait()
            others = [await self._worker(harness, 0, "exclusive") for _ in range(2)]
            reads = [group.create_task(_read(other, started, ended, progress)) for other in others]
            killed.kill()
            await reading
            while len(ended) < len(sent):
                progress.clear()
                await progress.wait()
            for other in others:
                other.kill()
            await asyncio.gather(*reads)
        # Counter keeps the order in which each was first started or ended.
        assert list(started) == list(ended) == sent
        assert started.total() - len(sent) <= HELD

    async def _worker(self, harness: Harness, limit: int, kind: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abe_router.conformance.worker"),
            *(self.url, harness.prefix, KEY, GROUP, str(max(0.5, self.lease)), str(limit), kind),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )


async def _read(
    worker: asyncio.subprocess.Process, started: Counter[str], ended: Counter[str], progress: asyncio.Event
) -> None:
    """Count what the worker prints, until it ends."""
    assert worker.stdout is not None
    while line := await worker.stdout.readline():
        what, _, id = line.decode().strip().partition(" ")
        (started if what == "S" else ended)[id] += 1
        progress.set()
    await worker.wait()
