"""Workers come and go, and no counter of their supervisor falls."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message
from abe_router.process.supervisor import Supervisor
from tests.limits import HANG

ROUTES = """\
backend: {url}
routes:
  orders.created:
    consumers:
      billing: {{handler: "counted_shop:charge", concurrency: {concurrency}}}
{more}"""
AUDIT = '      audit: {handler: "counted_shop:charge"}\n'
HANDLERS = """\
import time

async def charge(order):
    if order == "block":
        time.sleep(3)
"""
BILLING = "orders.created/billing"


class Watched:
    """A supervisor in this process, whose counters are watched all the time."""

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        self.folder, self.supervisor = folder, supervisor
        self._most: dict[str, int] = {}

    def write(self, *, concurrency: int = 2, more: str = "") -> None:
        url = f"sqlite:///{self.folder}/log.db"
        text = ROUTES.format(url=url, concurrency=concurrency, more=more)
        (self.folder / "routes.yaml").write_text(text)

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(40):
            while not condition():
                for name, counts in self.supervisor.counts().items():
                    assert counts.total("handled") >= self._most.get(name, 0)
                    self._most[name] = counts.total("handled")
                await asyncio.sleep(0.02)

    def handled(self) -> int:
        return self.supervisor.counts()[BILLING].total("handled")

    def routes(self) -> set[str]:
        return set(self.supervisor.counts())


@pytest.mark.timeout(120)
async def test_no_counter_falls_when_workers_are_killed_replaced_and_reloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), *sys.path])))
    (tmp_path / "counted_shop.py").write_text(HANDLERS)

    def command(number: int, channel: int, later: bool) -> list[str]:
        worker = ["--as-worker", str(number), str(channel), str(later)]
        return [sys.executable, "-B", "-m", "abe_router", "serve", f"{tmp_path}/routes.yaml", *worker]

    watched = Watched(tmp_path, supervisor := Supervisor(command, 2, reload_handlers=True))
    watched.write()
    running = asyncio.create_task(supervisor.run())
    await watched.until(lambda: supervisor.workers.running == 2)
    async with make_backend(f"sqlite:///{tmp_path}/log.db") as backend:

        async def publish(count: int) -> None:
            await append(*range(count))

        async def append(*payloads: object) -> None:
            await backend.append([new_message("orders.created", encode(each)) for each in payloads])

        await publish(200)
        await watched.until(lambda: watched.handled() == 200)

        (victim, *_) = [worker for worker in supervisor._workers if not worker.has_ended]
        victim.kill()
        await watched.until(lambda: supervisor.workers.restarts == 1)
        assert watched.handled() == 200
        await publish(100)
        await watched.until(lambda: watched.handled() == 300 and supervisor.workers.running == 2)

        watched.write(concurrency=3, more=AUDIT)
        await watched.until(lambda: len(watched.routes()) == 2)
        await watched.until(lambda: supervisor.counts()[BILLING].slots == 6)
        assert watched.handled() == 300
        watched.write(concurrency=3)
        await watched.until(lambda: watched.routes() == {BILLING})

        before = {worker.pid for worker in supervisor._workers}
        (tmp_path / "counted_shop.py").write_text(f"{HANDLERS}    return None\n")
        await watched.until(
            lambda: before.isdisjoint(each.pid for each in supervisor._workers if not each.has_ended)
        )
        assert supervisor.workers.restarts == 1
        await publish(100)
        await watched.until(lambda: watched.handled() == 400)

        await append("block")
        await watched.until(lambda: supervisor.workers.silence > 2)
        await watched.until(lambda: supervisor.process_counts().stalls == 1)
        assert supervisor.process_counts().stalled_seconds > 1
        await watched.until(lambda: supervisor.workers.silence < 2)

        # What was done since the last report comes with the last word.
        await publish(100)
        async with asyncio.timeout(HANG):
            while any(s.ready + s.in_flight for s in await backend.status() if s.name == BILLING):
                await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(HANG):
        assert await running == 0
    counts = supervisor.counts()[BILLING]
    assert counts.total("handled") == sum(counts.handling) == 501
    assert counts.handling_seconds > 3
    assert (counts.in_flight, counts.slots, supervisor.process_counts().disconnected) == (0, 0, 0)
