"""What `serve` tells systemd and its journal, with a real datagram socket and real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from abe_router.process.systemd import JournalFormatter, ServiceNotifier, is_journal
from tests.limits import HANG

ROUTES = """\
backend: sqlite:///{folder}/q.db
routes:
  a: {{consumers: {{g: {{handler: "work:handle", concurrency: {concurrency}, drain: 2s, timeout: 60s}}}}}}
"""
HANDLERS = """\
import os, signal, subprocess, time

async def handle(payload):
    if payload == "block":
        time.sleep(3600)
    if payload == "orphan":
        # The shell ends at once, and what it has started loses its parent.
        subprocess.run(["sh", "-c", "sleep 0.01 & echo $! > orphan.pid"], check=True)
    print(payload, flush=True)
"""


class Manager:
    """A service manager: the socket that it listens on, and what it has received."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.received: list[dict[str, str]] = []

    def close(self) -> None:
        self._socket.close()

    async def next(self) -> dict[str, str]:
        """Return the assignments of the next datagram."""
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65_536)
        found = dict(line.split("=", 1) for line in data.decode().split("\n"))
        self.received.append(found)
        return found

    async def until(self, name: str, seconds: float = HANG) -> dict[str, str]:
        """Return the first datagram that assigns `name`; raise TimeoutError after a silence of `seconds`."""
        while True:
            async with asyncio.timeout(seconds):
                found = await self.next()
            if name in found:
                return found


@pytest.fixture
def manager(request, tmp_path):
    is_abstract = getattr(request, "param", "path") == "abstract"
    found = Manager(f"@abe-{os.getpid()}-{tmp_path.name}" if is_abstract else str(tmp_path / "notify"))
    yield found
    found.close()


@asynccontextmanager
async def serving(
    folder: Path, *options: str, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `serve` in a folder; `prefix` is a command that runs it."""
    (folder / "work.py").write_text(HANDLERS)
    (folder / "routes.yaml").write_text(ROUTES.format(folder=folder, concurrency=1))
    prefix = environment.pop("prefix", "").split()
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-m", "abe_router", "serve", *options),
        cwd=folder,
        env={**os.environ, **environment},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def publish(folder: Path, payload: str) -> None:
    command = [sys.executable, "-m", "abe_router", "publish", "-c", "routes.yaml", "a", f'"{payload}"']
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize(("workers", "manager"), [("1", "path"), ("2", "abstract")], indirect=["manager"])
async def test_serve_reports_its_start_an_edit_a_rejected_edit_and_its_stop(tmp_path, manager, workers):
    async with serving(tmp_path, "--workers", workers, NOTIFY_SOCKET=manager.address) as process:
        assert "run" in (await manager.until("READY"))["STATUS"]
        routes = tmp_path / "routes.yaml"
        routes.write_text(ROUTES.format(folder=tmp_path, concurrency="none"))
        assert "an edit is rejected: " in (await manager.until("STATUS"))["STATUS"]
        routes.write_text(ROUTES.format(folder=tmp_path, concurrency=2))
        assert int((await manager.until("RELOADING"))["MONOTONIC_USEC"]) > 0
        await manager.until("READY")
        process.terminate()
        await manager.until("STOPPING")
        assert await process.wait() == 0
    assert not any("WATCHDOG" in found for found in manager.received)


async def test_pings_come_while_the_event_loop_runs_and_end_when_a_handler_blocks_it(tmp_path, manager):
    watchdog = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
    async with serving(tmp_path, **watchdog) as process:
        await manager.until("READY")
        await manager.until("WATCHDOG")
        await manager.until("WATCHDOG")
        publish(tmp_path, "block")
        # The pings end; without an event there is nothing to wait for but their absence.
        with pytest.raises(TimeoutError):
            await manager.until("never", 3.0)
        assert process.returncode is None
        process.terminate()  # a stop is reported although the loop is blocked
        await manager.until("STOPPING")


async def test_a_worker_whose_event_loop_stands_still_is_replaced_and_the_pings_go_on(tmp_path, manager):
    watchdog = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2500000"}
    async with serving(tmp_path, "--workers", "2", **watchdog) as process:
        await manager.until("READY")
        publish(tmp_path, "block")
        assert process.stderr is not None
        async with asyncio.timeout(HANG):
            async for line in process.stderr:
                if b"is killed: its event loop stands still" in line:
                    break
        manager.received.clear()
        await manager.until("WATCHDOG")


def test_a_watchdog_of_another_process_is_not_served():
    env = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "PATH": "/bin"}
    assert ServiceNotifier.from_env(env).watchdog == 0
    assert env == {"PATH": "/bin"}  # children do not inherit them
    env = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    assert ServiceNotifier.from_env(env).watchdog == 1.0
    assert ServiceNotifier.from_env({"WATCHDOG_USEC": "1000000"}).watchdog == 0


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "vsock:2:1", "relative"])
def test_a_manager_that_cannot_be_reached_disturbs_nothing(address):
    notifier = ServiceNotifier(address, 1.0)
    notifier.ready("running")
    notifier.ping()
    notifier.stopping()


async def test_no_state_follows_the_stop_and_a_status_is_one_line(manager):
    notifier = ServiceNotifier(manager.address)
    notifier.status("a\nREADY=1\udcff")
    notifier.stopping()
    notifier.stopping()
    notifier.ready("late")
    assert await manager.next() == {"STATUS": "a READY=1?"}
    assert (await manager.next())["STOPPING"] == "1"
    with pytest.raises(BlockingIOError):
        manager._socket.recv(10)


def test_each_line_of_a_record_in_the_journal_has_its_priority():
    formatter = JournalFormatter(logging.Formatter("%(message)s"))
    levels = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    records = [logging.LogRecord("a", level, "", 0, "one\ntwo", (), None) for level in levels]
    assert [formatter.format(record) for record in records] == [
        f"<{priority}>one\n<{priority}>two" for priority in (2, 3, 4, 6, 7)
    ]


def test_stderr_is_the_journal_if_device_and_inode_are_those_of_the_variable(tmp_path):
    with (tmp_path / "log").open("w") as stream:
        found = os.fstat(stream.fileno())
        assert is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
        assert not is_journal(stream, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
        assert not is_journal(stream, {})


async def test_serve_writes_priorities_when_its_stderr_is_the_journal(tmp_path):
    (tmp_path / "work.py").write_text(HANDLERS)
    (tmp_path / "routes.yaml").write_text(ROUTES.format(folder=tmp_path, concurrency=1))
    with (tmp_path / "log").open("wb") as log:
        found = os.fstat(log.fileno())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "abe_router", "serve", "--once", "--log-format", "text"),
            cwd=tmp_path,
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
            stderr=log,
        )
        assert await process.wait() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert any(line.startswith("<6>") for line in lines)
    assert all(line[:3] in ("<3>", "<4>", "<6>") for line in lines)


#: How to make a process PID 1 of a namespace, where the kernel allows it.
UNSHARE = "unshare --user --map-root-user --pid --fork --mount-proc --kill-child"
#: Does what PID 1 does, as the process to which orphans go (PR_SET_CHILD_SUBREAPER).
SUBREAPER = """\
import ctypes, os, subprocess, sys
from abe_router.process.signals import run_as_init

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if (code := run_as_init()) is not None:
    sys.exit(code)
assert os.getpgrp() == os.getpid()
subprocess.run(["sh", "-c", "sleep 0.01 &"], check=True)
print("orphan", flush=True)
sys.stdin.read()
assert subprocess.run(["sh", "-c", "exit 5"]).returncode == 5  # its own children are left to it
sys.exit(7)
"""


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def until_one_child(pid: int) -> None:
    """Wait until a process has one child: a zombie would be another."""
    async with asyncio.timeout(HANG):
        while len(children(pid)) > 1:
            await asyncio.sleep(0.01)


@pytest.fixture
def namespace() -> str:
    if subprocess.run([*UNSHARE.split(), "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    return UNSHARE


async def test_as_pid_1_serve_reaps_orphans_of_handlers_and_obeys_sigterm(tmp_path, namespace):
    async with serving(tmp_path, prefix=namespace) as process:
        publish(tmp_path, "orphan")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"orphan\n"
        (first,) = children(process.pid)
        await until_one_child(int(first))
        os.kill(int(first), signal.SIGTERM)
        async with asyncio.timeout(HANG):
            assert await process.wait() == 0


async def test_init_reaps_orphans_and_returns_the_exit_code_of_the_program():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SUBREAPER, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"orphan\n"
    await until_one_child(process.pid)
    await process.communicate(b"")
    assert process.returncode == 7


async def test_init_passes_signals_on_and_reports_a_kill_as_a_shell_does():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SUBREAPER, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    process.terminate()
    assert await process.wait() == 128 + signal.SIGTERM
