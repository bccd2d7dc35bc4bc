"""The supervisor, with real processes: it replaces workers that crash and workers with old code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
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
from abe_router.observe.events import Reloaded
from abe_router.process.channel import Accepted
from abe_router.process.supervisor import Supervisor, available_cores
from abe_router.runtime.heartbeat import WORKERS, WorkerReport, decode_reports
from abe_router.testing import RedisServer
from tests.limits import HANG

pytestmark = pytest.mark.timeout(120)
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
    write("begin", order)
    await asyncio.sleep(order["seconds"])
    write("end", order)

def write(what, order):
    os.write(1, f"{what} {order['id']} {os.getpid()} {VERSION}\\n".encode())
"""


class Serving:
    """`abe-router serve`, with its log lines and the output of its handlers."""

    def __init__(self, process: Process, backend: Backend) -> None:
        self.process, self.backend = process, backend
        self.log: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.by: dict[int, set[int]] = {}
        self.versions: set[str] = set()
        self._changed = asyncio.Event()
        self._reading = [asyncio.create_task(self._read_log()), asyncio.create_task(self._read_output())]
        self._sent = 0

    async def _read_log(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self.log.append(json.loads(line))
            else:
                self.plain.append(line.decode())
            self._changed.set()
        self._changed.set()

    async def _read_output(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            what, id, pid, version = line.decode().split()
            (self.begun if what == "begin" else self.ended)[int(id)] += 1
            self.by.setdefault(int(pid), set()).add(int(id))
            self.versions.add(version)
            self._changed.set()
        self._changed.set()

    async def until(self, condition: Callable[[], Any], seconds: float = 40) -> Any:
        """Wait until a condition holds."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := condition()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.log[-5:]} {self.plain} {self.begun - self.ended}") from None
        return found

    def logged(self, text: str) -> list[str]:
        return [record["message"] for record in self.log if text in record["message"]]

    def pids(self) -> list[int]:
        """Return the workers that have started, in that order."""
        return [int(text.partition("pid ")[2].partition(")")[0]) for text in self.logged(" runs")]

    async def run(self, workers: int) -> list[int]:
        await self.until(lambda: len(self.pids()) >= workers)
        return self.pids()

    async def publish(self, count: int, seconds: float = 0.005) -> None:
        first, self._sent = self._sent, self._sent + count
        orders = [{"id": n, "seconds": seconds} for n in range(first, self._sent)]
        await self.backend.append([new_message(KEY, encode(order)) for order in orders])

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Publish continuously while inside, enough to keep two workers busy."""

        async def publish_on() -> None:
            while not left.is_set():
                await self.publish(5, seconds=0.015)
                await asyncio.sleep(0.02)

        left = asyncio.Event()
        publishing = asyncio.create_task(publish_on())
        try:
            yield
        finally:
            left.set()
            await publishing

    async def all_ended(self) -> None:
        await self.until(lambda: len(self.ended) == self._sent)

    async def code(self) -> int:
        """Wait until all processes have ended, and return the exit code of `serve`."""
        async with asyncio.timeout(40):
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
async def serving(
    folder: Path, url: str, *options: str, handlers: str = HANDLERS, routes: str = ROUTES
) -> AsyncIterator[Serving]:
    (folder / "shop.py").write_text(handlers)
    (folder / "prices.py").write_text("VERSION = 'old'\n")
    (folder / "routes.yaml").write_text(routes.format(url=url))
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


async def reports(backend: Backend) -> list[WorkerReport]:
    return list(decode_reports(await backend.entries(WORKERS)).values())


async def test_a_killed_worker_is_replaced_and_no_message_is_lost(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        first, second = await run.run(2)
        async with run.load():
            await run.until(lambda: {first, second} <= set(run.by))
            os.kill(second, signal.SIGKILL)
            third = (await run.run(3))[-1]
            await run.until(lambda: third in run.by)
        assert run.logged(f"worker 2 (pid {second}) was killed by SIGKILL, another starts in 500ms")
        await run.all_ended()
        assert (run.begun - run.ended).total() <= 2  # what the killed worker was running
        assert (
            len(run.logged("running 1 route: orders.created/billing")) == 1
        )  # the third begins as the second
        run.process.terminate()
        assert await run.code() == 0


@pytest.mark.parametrize("where", ["sqlite", pytest.param("redis", marks=pytest.mark.long)])
async def test_new_code_replaces_the_workers_under_load_without_loss_or_duplicate(
    tmp_path, url, where, request
):
    url = url if where == "sqlite" else request.getfixturevalue("redis_url")
    routes = ROUTES.replace("lease: 1s", "lease: 30s")  # on a busy machine one of a second may run out
    async with serving(tmp_path, url, "--workers", "2", "--reload-handlers", routes=routes) as run:
        old = await run.run(2)
        async with run.load():
            await run.until(lambda: set(old) <= set(run.by))
            (tmp_path / "prices.py").write_text("VERSION = 'new'\n")
            await run.until(lambda: run.logged("all workers run the new code"))
            new = run.pids()[2:]
            await run.until(lambda: set(new) <= set(run.by))
        await run.all_ended()
        run.process.terminate()
        assert await run.code() == 0
        assert run.versions == {"old", "new"}
        assert not set(old) & set(new)
        assert set(run.begun.values()) == set(run.ended.values()) == {1}


async def test_code_that_cannot_be_imported_replaces_no_worker_and_is_logged_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2", "--reload-handlers") as run:
        old = await run.run(2)
        (tmp_path / "prices.py").write_text("VERSION =\n")
        await run.until(
            lambda: run.logged("with the new code, ended with exit code 78 before its routes ran")
        )
        (rejected,) = [record for record in run.log if record["event"] == "reload_rejected"]
        assert "SyntaxError" in rejected["diagnostics"][0]["message"]
        async with asyncio.timeout(HANG):
            while {report.outdated for report in await reports(run.backend)} != {
                (str(tmp_path / "prices.py"),)
            }:
                await asyncio.sleep(0.1)
        await run.publish(20)
        await run.all_ended()
        assert set(run.by) <= set(old)

        (tmp_path / "prices.py").write_text("VERSION = 'mended'\n")
        await run.until(lambda: run.logged("all workers run the new code"))
        run.process.terminate()
        assert await run.code() == 0


async def test_all_workers_follow_an_edit_and_what_they_say_is_logged_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "3") as run:
        first, *_ = await run.run(3)
        good = ROUTES.format(url=url)
        (tmp_path / "routes.yaml").write_text(good.replace("concurrency", "concurency"))
        while sum(bool(report.rejected) for report in await reports(run.backend)) < 3:
            await asyncio.sleep(0.02)
        await run.until(lambda: run.logged("edit rejected"))
        (tmp_path / "routes.yaml").write_text(good.replace("concurrency: 2", "concurrency: 3"))
        await run.until(lambda: run.logged("changed orders.created/billing (concurrency 2 -> 3)"))
        assert len(run.logged("edit rejected")) == 1

        os.kill(first, signal.SIGKILL)
        await run.until(lambda: run.logged("was killed by SIGKILL"))
        (tmp_path / "routes.yaml").write_text(
            good.replace("concurrency: 2", "concurrency: 4\n        timeout: 40s")
        )
        await run.until(lambda: run.logged("concurrency 3 -> 4, timeout 30s -> 40s"))
        await run.run(4)
        async with asyncio.timeout(30):
            while True:
                running = [report for report in await reports(run.backend) if report.pid != first]
                if len(running) == 3 and len({(r.revision, r.warnings) for r in running}) == 1:
                    break
                await asyncio.sleep(0.02)
        assert running[0].warnings == 1
        run.process.terminate()
        assert await run.code() == 0
        logged = [record["event"] for record in run.log if record["event"] in ("reloaded", "config_warning")]
        assert logged == ["reloaded", "reloaded", "config_warning", "reloaded"]
        assert [record["code"] for record in run.log if record["event"] == "config_warning"] == ["W106"]


async def test_each_reload_is_logged_once_although_workers_are_slow_or_join_with_the_new_table(caplog):
    def says(worker, number, revision, change=""):
        reloaded = Reloaded(number, revision, (), (), (), 1, 0.0, (change,))
        supervisor._on_message(worker, Accepted(reloaded))
        worker.has_run = True

    supervisor = Supervisor(lambda *_: ("sleep", "60"), 3)
    quick, slow, joins = [await supervisor._start(number) for number in (1, 2, 3)]
    with caplog.at_level("INFO"):
        says(quick, 1, "a")
        says(slow, 1, "a")
        says(joins, 1, "b")
        for number, revision in enumerate("bab", 2):
            says(quick, number, revision, f"change {number}")
        for number, revision in enumerate("bab", 2):
            says(slow, number, revision, f"change {number}")
        for number, revision in enumerate("ab", 2):
            says(joins, number, revision, f"change {number + 1}")
    for worker in (quick, slow, joins):
        worker.kill()
        await worker.ended()
    changes = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert changes == ["", *(f"change {number}; 1 route kept" for number in (2, 3, 4))]


async def test_the_first_signal_drains_all_workers_and_the_second_forces_their_exit(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        await run.run(2)
        await run.publish(4, seconds=60)
        await run.until(lambda: len(run.begun) == 4)
        run.process.send_signal(signal.SIGINT)
        run.process.terminate()
        # The system may deliver two signals in another order.
        assert await run.code() in {128 + signal.SIGINT, 128 + signal.SIGTERM}
        assert not run.ended


async def test_a_signal_to_the_whole_process_group_still_drains(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        workers = await run.run(2)
        await run.publish(4, seconds=0.5)
        await run.until(lambda: len(run.begun) == 4)
        for pid in (run.process.pid, *workers):
            os.kill(pid, signal.SIGTERM)
        assert await run.code() == 0
        assert len(run.ended) == 4


async def test_workers_drain_and_end_after_their_supervisor(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2") as run:
        await run.run(2)
        await run.publish(4, seconds=0.5)
        await run.until(lambda: len(run.begun) == 4)
        run.process.kill()
        assert await run.code() == -signal.SIGKILL  # waits until the workers have ended
        assert len(run.ended) == 4


async def test_once_ends_when_all_messages_are_handled(tmp_path, url):
    backend = make_backend(url)
    await backend.append([new_message(KEY, encode({"id": n, "seconds": 0.01})) for n in range(50)])
    await backend.close()
    async with serving(tmp_path, url, "--workers", "2", "--once") as run:
        assert await run.code() == 0
        assert len(run.ended) == 50


async def test_a_file_with_errors_does_not_start_and_is_reported_once(tmp_path, url):
    async with serving(tmp_path, url, "--workers", "2", "missing.yaml") as run:
        assert await run.code() == 78
        assert run.log == []
        assert run.plain[-1] == "error: missing.yaml cannot be used: 1 error\n"
        assert "".join(run.plain).count("error[R001]") == 1


async def test_a_worker_whose_event_loop_is_blocked_is_killed_by_a_forced_exit(tmp_path, url):
    blocking = HANDLERS.replace("await asyncio.sleep", "__import__('time').sleep")
    async with serving(tmp_path, url, "--workers", "2", handlers=blocking) as run:
        await run.run(2)
        await run.publish(2, seconds=60)
        await run.until(lambda: run.begun)
        run.process.terminate()
        await asyncio.sleep(0.1)
        run.process.terminate()
        assert await run.code() == 128 + signal.SIGTERM


#: Handlers of three workers. Each blocks something else: the event loop, a thread that outlives its message,
#: and the whole interpreter. `charge` writes which one it is.
BLOCKING = (
    HANDLERS.replace(
        'await asyncio.sleep(order["seconds"])',
        """\
if WHAT == "loop":
        __import__("time").sleep(60)
    elif WHAT == "thread":
        await asyncio.to_thread(__import__("time").sleep, 60)
    else:
        __import__("re").match("(a+)+$", "a" * 60 + "b")""",
    ).replace(
        "VERSION}",
        "WHAT}",
    )
    + """
def chosen():
    for what in ("loop", "thread", "interpreter"):
        try:
            open(what, "x").close()
        except FileExistsError:
            continue
        return what

WHAT = chosen()
"""
)
BLOCKED = {"loop", "thread", "interpreter"}


async def test_blocked_workers_end_within_the_drain_time_and_a_second(tmp_path, url, control):
    async with serving(tmp_path, url, "--workers", "3", "--drain", "0.5", handlers=BLOCKING) as run:
        await run.run(3)
        await run.publish(12)
        await run.until(lambda: run.versions == BLOCKED)
        began = time.time()
        run.process.terminate()
        assert await run.code() == 1
        assert control.since(began) < 6  # it takes 1.5 s on an idle machine; the handlers block for 60 s


async def test_new_code_replaces_blocked_workers(tmp_path, url):
    options = ("--workers", "3", "--drain", "0.5", "--reload-handlers")
    async with serving(tmp_path, url, *options, handlers=BLOCKING) as run:
        old = await run.run(3)
        await run.publish(12)
        await run.until(lambda: run.versions == BLOCKED)
        (tmp_path / "shop.py").write_text(HANDLERS)
        await run.until(lambda: run.logged("all workers run the new code"))
        for pid in old:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        await run.until(lambda: len(run.ended) == 12)
        run.process.terminate()
        assert await run.code() == 0


async def test_a_worker_that_still_imports_its_handlers_ends_with_its_supervisor(tmp_path, url):
    slow = "print('begin 0 0 x', flush=True)\nimport time; time.sleep(60)\n"
    async with serving(tmp_path, url, "--workers", "2", handlers=slow) as run:
        await run.until(lambda: run.begun)
        run.process.kill()
        assert await run.code() == -signal.SIGKILL


def test_available_cores_respect_the_quota_of_a_container(tmp_path):
    assert available_cores(tmp_path / "missing") == len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000\n")
    assert available_cores(quota) == len(os.sched_getaffinity(0))
    quota.write_text("50000 100000\n")
    assert available_cores(quota) == 1


async def test_workers_of_the_console_script_run_no_code_that_lies_in_the_current_folder(tmp_path, url):
    """`-m` would put the folder on the import path before anything of the routes file is read."""
    entry = tmp_path / "evil-1.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (entry / "entry_points.txt").write_text("[abe_router.backends]\nevil = evil:Evil\n")
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "routes.yaml").write_text("backend: evil://\nroutes: {a: {}}\n")
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("abe-router"), "serve", "--workers", "2"),
        cwd=tmp_path,
        stderr=PIPE,
    )
    _, output = await process.communicate()
    assert b"evil" in output
    assert not (tmp_path / "ran").exists()
