"""Several workers as one, with real processes: what crashes comes back, what changes is replaced."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.messages.message import encode, new_message
from abe_router.process import slot as place
from abe_router.process.child import Child
from abe_router.process.cores import cores
from abe_router.testing import RedisServer

KEY = "orders.created"
ROUTES = """\
backend: {url}
routes:
  orders.created:
    consumers:
      billing:
        handler: shop:charge
        concurrency: 2
        lease: 1s
        retry: {{attempts: 3, initial: 10ms}}
"""
HANDLERS = """\
import asyncio, os
from prices import VERSION

async def charge(order):
    say("begin", order)
    await asyncio.sleep(order["seconds"])
    say("end", order)

def say(what, order):
    os.write(1, f"{what} {order['id']} {os.getpid()} {VERSION}\\n".encode())
"""


class Serving:
    """`abe-router serve`, what it logged and what its handlers said."""

    def __init__(self, process: Process, backend: Backend) -> None:
        self.process, self.backend = process, backend
        self.log: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.by: dict[int, set[int]] = {}
        self.versions: set[str] = set()
        self._news = asyncio.Event()
        self._reading = [asyncio.create_task(self._read_log()), asyncio.create_task(self._read_ledger())]
        self._sent = 0

    async def _read_log(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self.log.append(json.loads(line))
            else:
                self.plain.append(line.decode())
            self._news.set()
        self._news.set()

    async def _read_ledger(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            what, id, pid, version = line.decode().split()
            (self.begun if what == "begin" else self.ended)[int(id)] += 1
            self.by.setdefault(int(pid), set()).add(int(id))
            self.versions.add(version)
            self._news.set()
        self._news.set()

    async def until(self, holds: Callable[[], Any], seconds: float = 20) -> Any:
        """Wait until something holds of what was read."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := holds()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.log[-5:]} {self.plain} {self.begun - self.ended}") from None
        return found

    def said(self, text: str) -> list[str]:
        return [record["message"] for record in self.log if text in record["message"]]

    def pids(self) -> list[int]:
        """Return the workers that said that they run, in that order."""
        return [int(text.partition("pid ")[2].partition(")")[0]) for text in self.said(" runs")]

    async def run(self, workers: int) -> list[int]:
        await self.until(lambda: len(self.pids()) >= workers)
        return self.pids()

    async def publish(self, count: int, seconds: float = 0.005) -> None:
        first, self._sent = self._sent, self._sent + count
        orders = [{"id": n, "seconds": seconds} for n in range(first, self._sent)]
        await self.backend.append([new_message(KEY, encode(order)) for order in orders])

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Publish without end while inside, as much as keeps two workers busy."""

        async def go_on() -> None:
            while not left.is_set():
                await self.publish(5, seconds=0.015)
                await asyncio.sleep(0.02)

        left = asyncio.Event()
        publishing = asyncio.create_task(go_on())
        try:
            yield
        finally:
            left.set()
            await publishing

    async def all_ended(self) -> None:
        await self.until(lambda: len(self.ended) == self._sent)

    async def code(self) -> int:
        """Wait until no process is left that could say anything, and return the exit code."""
        async with asyncio.timeout(20):
            await asyncio.gather(*self._reading)
            return await self.process.wait()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


@asynccontextmanager
async def serving(folder: Path, url: str, *options: str, handlers: str = HANDLERS) -> AsyncIterator[Serving]:
    (folder / "shop.py").write_text(handlers)
    (folder / "prices.py").write_text("VERSION = 'old'\n")
    (folder / "routes.yaml").write_text(ROUTES.format(url=url))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "abe_router", "serve", "--log-format", "json", *options),
        stdout=PIPE,
        stderr=PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ABE_ROUTER_BACKEND": ""},
    )
    backend = make_backend(url)
    await backend.open()
    run = Serving(process, backend)
    try:
        yield run
    finally:
        if process.returncode is None:
            process.kill()
        await run.code()
        await backend.close()


async def test_what_is_killed_is_replaced_and_nothing_is_lost(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        first, second = await run.run(2)
        async with run.load():
            await run.until(lambda: {first, second} <= set(run.by))
            os.kill(second, signal.SIGKILL)
            third = (await run.run(3))[-1]
            await run.until(lambda: third in run.by)
        assert run.said(f"worker 2 (pid {second}) was killed by SIGKILL, another starts in 500ms")
        await run.all_ended()
        assert (run.begun - run.ended).total() <= 2  # what the killed one was running
        assert {record["worker"] for record in run.log if record["event"] == "consumer_started"} == {1, 2}
        run.process.terminate()
        assert await run.code() == 0


@pytest.mark.parametrize("where", ["sqlite", "redis"])
async def test_new_code_replaces_the_workers_under_load_without_loss_or_duplicate(
    tmp_path, url, where, request
):
    url = url if where == "sqlite" else request.getfixturevalue("redis_url")
    async with serving(tmp_path, url, "--workers", "2", "--reload-handlers") as run:
        old = await run.run(2)
        async with run.load():
            await run.until(lambda: set(old) <= set(run.by))
            (tmp_path / "prices.py").write_text("VERSION = 'new'\n")
            await run.until(lambda: run.said("all workers run the new code"))
            new = run.pids()[2:]
            await run.until(lambda: set(new) <= set(run.by))
        await run.all_ended()
        run.process.terminate()
        assert await run.code() == 0
        assert run.versions == {"old", "new"}
        assert not set(old) & set(new)
        assert set(run.begun.values()) == set(run.ended.values()) == {1}


async def test_code_that_cannot_be_imported_replaces_nothing_and_is_told_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2", "--reload-handlers") as run:
        old = await run.run(2)
        (tmp_path / "prices.py").write_text("VERSION =\n")
        await run.until(lambda: run.said("with the new code, ended with exit code 78 before its routes ran"))
        (rejected,) = [record for record in run.log if record["event"] == "reload_rejected"]
        assert "SyntaxError" in rejected["diagnostics"][0]["message"]
        await run.publish(20)
        await run.all_ended()
        assert set(run.by) <= set(old)

        (tmp_path / "prices.py").write_text("VERSION = 'mended'\n")
        await run.until(lambda: run.said("all workers run the new code"))
        run.process.terminate()
        assert await run.code() == 0


async def test_an_edit_of_the_file_is_followed_by_all_and_its_faults_are_told_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        await run.run(2)
        good = ROUTES.format(url=url)
        (tmp_path / "routes.yaml").write_text(good.replace("concurrency", "concurency"))
        while sum(b'"rejected":[{' in said for said in (await run.backend.announcements()).values()) < 2:
            await asyncio.sleep(0.02)
        await run.until(lambda: run.said("edit rejected"))
        (tmp_path / "routes.yaml").write_text(good.replace("concurrency: 2", "concurrency: 3"))
        await run.until(lambda: len(run.said("changed orders.created/billing")) == 2)
        assert len(run.said("edit rejected")) == 1
        assert run.process.returncode is None


async def test_the_first_signal_drains_all_and_the_second_forces(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        await run.run(2)
        await run.publish(4, seconds=60)
        await run.until(lambda: len(run.begun) == 4)
        run.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.1)  # two at once would count as one
        assert run.process.returncode is None
        run.process.terminate()
        assert await run.code() == 128 + signal.SIGTERM
        assert not run.ended


async def test_a_signal_to_the_whole_group_still_drains(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        workers = await run.run(2)
        await run.publish(4, seconds=0.5)
        await run.until(lambda: len(run.begun) == 4)
        for pid in (run.process.pid, *workers):
            os.kill(pid, signal.SIGTERM)
        assert await run.code() == 0
        assert len(run.ended) == 4


async def test_workers_that_lose_their_supervisor_drain_and_end(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        await run.run(2)
        await run.publish(4, seconds=0.5)
        await run.until(lambda: len(run.begun) == 4)
        run.process.kill()
        assert await run.code() == -signal.SIGKILL  # it waits until the workers are gone
        assert len(run.ended) == 4


async def test_once_ends_when_everything_is_done(tmp_path, url):
    backend = make_backend(url)
    await backend.append([new_message(KEY, encode({"id": n, "seconds": 0.01})) for n in range(50)])
    await backend.close()
    async with serving(tmp_path, url, "--workers", "2", "--once") as run:
        assert await run.code() == 0
        assert len(run.ended) == 50


async def test_a_file_with_faults_does_not_start_and_is_told_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2", "missing.yaml") as run:
        assert await run.code() == 78
        assert run.log == []
        assert run.plain[-1] == "error: missing.yaml cannot be used: 1 error\n"
        assert "".join(run.plain).count("error[R001]") == 1


async def test_a_worker_that_hears_nothing_is_killed_when_forced(tmp_path, url):
    deaf = HANDLERS.replace("await asyncio.sleep", "__import__('time').sleep")
    async with serving(tmp_path, url, "--workers", "2", handlers=deaf) as run:
        await run.run(2)
        await run.publish(2, seconds=60)
        await run.until(lambda: run.begun)
        run.process.terminate()
        await asyncio.sleep(0.1)
        run.process.terminate()
        assert await run.code() == 128 + signal.SIGTERM


async def test_a_worker_that_still_imports_its_handlers_ends_with_its_supervisor(tmp_path, url):
    slow = "print('begin 0 0 x', flush=True)\nimport time; time.sleep(60)\n"
    async with serving(tmp_path, url, "--workers", "2", handlers=slow) as run:
        await run.until(lambda: run.begun)
        run.process.kill()
        assert await run.code() == -signal.SIGKILL


STUCK = """
import asyncio, sys, time
from abe_router.process.channel import Lifeline

async def main(lifeline):
    lifeline.obey(print)
    print("deaf", flush=True)
    time.sleep(60)

asyncio.run(main(Lifeline(1, int(sys.argv[1]), patience=0.1)))
"""


async def test_a_worker_that_is_stuck_does_not_outlive_its_supervisor():
    ours, its = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STUCK, str(its.fileno())), stdout=PIPE, pass_fds=[its.fileno()]
    )
    its.close()
    assert process.stdout
    assert await process.stdout.readline() == b"deaf\n"
    ours.close()
    async with asyncio.timeout(5):
        assert await process.wait() == 1


async def test_pauses_before_a_worker_that_keeps_ending_grow(monkeypatch):
    monkeypatch.setattr(place, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(place, "LONGEST_PAUSE", 0.08)
    starts, enough, stopping = [], asyncio.Event(), asyncio.Event()

    async def start() -> Child:
        starts.append(asyncio.get_running_loop().time())
        if len(starts) == 6:
            enough.set()
        return await Child.start(1, lambda number, line: ["false"], lambda child, word: None)

    keeping = asyncio.create_task(place.Place(start, stopping).keep())
    async with asyncio.timeout(10):
        await enough.wait()
        stopping.set()
        assert await keeping == 1
    pauses = [after - before for before, after in itertools.pairwise(starts)]
    assert all(pause >= least for pause, least in zip(pauses, [0.02, 0.04, 0.08, 0.08, 0.08], strict=True))


async def test_a_stop_while_nobody_is_there_has_nobody_who_ended_badly(monkeypatch, caplog):
    monkeypatch.setattr(place, "FIRST_PAUSE", 60.0)
    stopping = asyncio.Event()

    async def start() -> Child:
        return await Child.start(1, lambda number, line: ["false"], lambda child, word: None)

    keeping = asyncio.create_task(place.Place(start, stopping).keep())
    async with asyncio.timeout(10):
        while "another starts" not in caplog.text:
            await asyncio.sleep(0.01)
        stopping.set()
        assert await keeping == 0


async def test_a_stop_waits_for_a_worker_that_came_with_new_code_while_the_place_was_empty(
    monkeypatch, caplog
):
    monkeypatch.setattr(place, "FIRST_PAUSE", 60.0)
    stopping, code = asyncio.Event(), iter(["exit 1", "read line; exit 3"])

    async def start() -> Child:
        command = ["sh", "-c", next(code)]
        child = await Child.start(1, lambda number, line: command, lambda child, word: None)
        child.has_run = "3" in command[2]
        child.settled.set()
        return child

    one = place.Place(start, stopping)
    keeping = asyncio.create_task(one.keep())
    async with asyncio.timeout(10):
        while "another starts" not in caplog.text:
            await asyncio.sleep(0.01)
        assert await one.replace()
        stopping.set()
        assert await keeping == 3


async def test_a_stop_while_no_worker_can_be_started_ends_the_tries(monkeypatch):
    monkeypatch.setattr(place, "FIRST_PAUSE", 0.01)
    tries, stopping = [], asyncio.Event()

    async def start() -> Child:
        tries.append(1)
        if len(tries) == 3:
            stopping.set()
        raise OSError("no more processes")

    async with asyncio.timeout(10):
        assert await place.Place(start, stopping).keep() == 0
    assert len(tries) == 3


def test_cores_are_those_that_a_container_may_use(tmp_path):
    assert cores(tmp_path / "missing") == len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000\n")
    assert cores(quota) == len(os.sched_getaffinity(0))
    quota.write_text("50000 100000\n")
    assert cores(quota) == 1
