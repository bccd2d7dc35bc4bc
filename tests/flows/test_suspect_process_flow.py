"""A message that kills its process becomes a dead letter, and takes no other message with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message
from abe_router.testing import RedisServer

pytestmark = pytest.mark.heavy(55)

HANDLERS = """
import asyncio, os

def write(number):
    journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{number}\\n".encode())  # whole, or not at all
    os.close(journal)

async def charge(order):
    if order["number"] == 77:
        await asyncio.sleep(SECONDS)
        os._exit(9)
    await asyncio.sleep(0.005)
    write(order["number"])

async def charge_all(orders):
    for order in orders:
        await charge(order)
"""
#: A lease that runs out without a death counts as a delivery too, so it is long enough for a busy machine.
ROUTES = """
backend: {url}
defaults: {{lease: 1500ms, max_deliveries: {limit}, concurrency: 10}}
routes:
  orders.created:
    consumers:
      billing: {options}
  orders.paid:
    consumers:
      billing: handlers:charge
"""
#: Runs two workers as child processes, and starts each again when it ends. A fork of a process that has
#: imported the program starts at once.
SERVE_FOR_EVER = """
import os, sys
import abe_router.application, abe_router.backends.redis, abe_router.backends.sqlite, abe_router.cli.serve
from abe_router.cli.root import run

workers = 0
while True:
    if workers == 2:
        os.wait()
        workers -= 1
    if os.fork() == 0:
        sys.exit(run(["serve", "routes.yaml"]))
    workers += 1
"""
KINDS = {
    "plain": "{handler: handlers:charge}",
    "batch": "{handler: handlers:charge_all, batch: {size: 20, wait: 10ms}}",
    "ordered": "{handler: handlers:charge, order_by: /customer}",
    "rate": "{handler: handlers:charge, rate: 500/s}",
}
MESSAGES = 200


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the URLs of empty backends that processes share, by name."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/orders.db"}
    if RedisServer.installed():
        with RedisServer(tmp_path) as server:
            yield {**urls, "redis": server.url}
    else:
        assert not os.environ.get("CI"), "redis-server is not installed"
        yield urls


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "seconds", "limit"),
    [
        ("plain", 0.0, 3),
        ("plain", 0.2, 4),  # from 4 on suspects run in groups
        ("batch", 0.0, 3),
        ("batch", 0.0, 4),
        ("ordered", 0.0, 3),
        ("ordered", 0.0, 4),
        ("rate", 0.0, 3),
    ],
)
async def test_message_that_kills_its_process_takes_no_other_with_it(
    urls: Mapping[str, str], kind: str, seconds: float, limit: int, tmp_path: Path
) -> None:
    """All backends at once, because most of the time the workers wait for leases to end."""
    for name, url in urls.items():
        (tmp_path / name).mkdir()
        text = ROUTES.format(url=url, options=KINDS[kind], limit=limit)
        (tmp_path / name / "routes.yaml").write_text(text)
        (tmp_path / name / "handlers.py").write_text(HANDLERS.replace("SECONDS", str(seconds)))
    found = await asyncio.gather(*(_dead_and_handled(tmp_path / name, url) for name, url in urls.items()))
    for name, (dead, handled) in zip(urls, found, strict=True):
        assert (name, dead) == (name, [(77, "max_deliveries")])
        assert len(handled) == 2 * MESSAGES - 1


async def _dead_and_handled(folder: Path, url: str) -> tuple[list[tuple[int, str]], set[int]]:
    """Serve a folder until all messages are handled or dead; return both."""
    async with make_backend(url) as backend:
        await backend.append(
            [
                new_message("orders.created", encode({"customer": n % 20, "number": n}))
                for n in range(MESSAGES)
            ]
            # The other route has none that kills, and is held by the same processes.
            + [new_message("orders.paid", encode({"number": 1000 + n})) for n in range(MESSAGES)]
        )
        serving = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVE_FOR_EVER),
            cwd=folder,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(90):
                while await _unfinished(backend):
                    await asyncio.sleep(0.1)
        finally:
            os.killpg(serving.pid, signal.SIGKILL)
            await serving.wait()
        dead = [
            (letter.message.payload["number"], letter.reason.kind)
            for key in ("orders.created", "orders.paid")
            for letter in await backend.dead_letters(key, "billing")
        ]
    return dead, {int(line) for line in (folder / "journal").read_text().split()}


async def _unfinished(backend: Backend) -> int:
    states = [s for s in await backend.status() if s.group == "billing"]
    return 1 if len(states) < 2 else sum(s.ready + s.in_flight + s.delayed for s in states)
