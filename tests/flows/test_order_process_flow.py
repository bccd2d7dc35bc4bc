"""Two processes serve an ordered route; one is killed, and the file is edited, under load."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter, defaultdict
from contextlib import AsyncExitStack

from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message

HANDLERS = """
import asyncio, os

def write(*words):
    journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, (" ".join(map(str, words)) + "\\n").encode())  # whole, or not at all
    os.close(journal)

async def charge(order, message):
    customer, number = order["customer"]["id"], order["number"]
    write("began", customer, number, os.getpid())
    await asyncio.sleep(0.002)
    if number % 7 == 3 and message.attempt == 1:
        raise ValueError("no stock")
    write("ended", customer, number, os.getpid())
"""
ROUTES = """
backend: {url}
routes:
  orders.created:
    consumers:
      billing:
        handler: handlers:charge
        order_by: /customer/id
        lease: 1s
        concurrency: {concurrency}
        retry: {{initial: 20ms}}
"""
CUSTOMERS, ORDERS = 8, 20


async def test_order_is_kept_after_a_kill_and_an_edit(url, tmp_path):
    routes, journal = tmp_path / "routes.yaml", tmp_path / "journal"
    (tmp_path / "handlers.py").write_text(HANDLERS)
    routes.write_text(ROUTES.format(url=url, concurrency=4))
    async with make_backend(url) as backend, AsyncExitStack() as stack:
        await backend.append(
            [
                new_message("orders.created", encode({"customer": {"id": c}, "number": n}))
                for n in range(ORDERS)
                for c in range(CUSTOMERS)
            ]
        )
        running = [await stack.enter_async_context(Serving(tmp_path)) for _ in range(2)]
        lines = await until(journal, 30)
        worker = int(lines[-1].split()[-1])
        os.kill(worker, signal.SIGKILL)
        lines = await until(journal, len(ended(lines)) + 30)
        assert worker != int(lines[-1].split()[-1]) in {serving.process.pid for serving in running}
        routes.write_text(ROUTES.format(url=url, concurrency=16))
        await stack.enter_async_context(Serving(tmp_path))
        lines = await until(journal, CUSTOMERS * ORDERS)
        (status,) = await backend.status()
    over: dict[str, list[int]] = defaultdict(list)
    for line in lines:
        what, customer, number, _ = line.split()
        if what == "ended" and int(number) not in over[customer]:
            over[customer].append(int(number))
        assert set(over[customer]) >= set(range(int(number))), f"{line}: too early"
    assert all(numbers == list(range(ORDERS)) for numbers in over.values())
    assert again_of(lines) <= last_of(lines, worker), "more ran twice than the killed process had in flight"
    assert status.dead == 0


class Serving:
    """`abe-router serve` in a process of its own."""

    def __init__(self, folder) -> None:
        self.folder = folder

    async def __aenter__(self):
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "abe_router", "serve", "routes.yaml"),
                cwd=self.folder,
                stderr=log,
                stdout=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


def ended(lines):
    return {tuple(line.split()[1:3]) for line in lines if line.startswith("ended")}


def again_of(lines):
    """Return which orders ended more than once."""
    counts = Counter(tuple(line.split()[1:3]) for line in lines if line.startswith("ended"))
    return {order for order, count in counts.items() if count > 1}


def last_of(lines, worker):
    """Return what a process began last for each customer; everything before that was settled."""
    began = (line.split()[1:] for line in lines if line.startswith("began"))
    return set({customer: number for customer, number, pid in began if pid == str(worker)}.items())


async def until(journal, count):
    """Return the journal once so many orders have ended."""
    async with asyncio.timeout(60):
        while True:
            lines = journal.read_text().splitlines() if journal.exists() else []
            if len(ended(lines)) >= count:
                return lines
            await asyncio.sleep(0.02)
