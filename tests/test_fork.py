"""A process that a handler forks ends where it would leave the handler, and touches nothing of its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import pytest

from abe_router.testing import RedisServer
from tests.limits import HANG

MESSAGES = 60
#: How a child leaves its handler, and its exit code.
ENDS = {"exit": 3, "text": 1, "error": 1, "await": 1, "return": 0}
HANDLERS = """\
import asyncio, os, sys, threading, time

PARENT, ended = os.getpid(), []

def note(text):
    if text.startswith("end"):
        ended.append(text)
    os.write(1, f"{text} {os.getpid() == PARENT}\\n".encode())

def fork(end):
    pid = os.fork()
    if pid == 0:
        if end == "exit":
            sys.exit(3)
        if end == "text":
            sys.exit("no more")
        if end == "error":
            raise ValueError("of the child")
        return True
    threading.Thread(target=lambda: wait(pid, end), daemon=False).start()
    return False

def wait(pid, end):
    note(f"{end}: code {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")

async def on_loop(payload):
    note(f"begin {payload['n']}")
    if payload["end"] and fork(payload["end"]) and payload["end"] == "await":
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.001)
    note(f"end {payload['n']}")

def in_thread(payload):
    note(f"begin {payload['n']}")
    if payload["end"] and fork(payload["end"]):
        return False
    time.sleep(0.001)
    note(f"end {payload['n']}")
    return True

def batch(payloads):
    all(in_thread(payload) for payload in payloads)

async def pooled(payload):
    await asyncio.to_thread(in_thread, payload)
"""
PROGRAM = f"""\
import asyncio, json, sys
from abe_router import Router

async def main():
    ends = dict(zip(range(5, {MESSAGES}, 10), sys.argv[1].split()))
    async with Router.from_file("routes.yaml", watch=False) as router:
        for n in range({MESSAGES}):
            await router.publish("a.b", {{"n": n, "end": ends.get(n)}})
        while len(sys.modules["forking"].ended) < {MESSAGES}:
            await asyncio.sleep(0.01)

def run():
    if sys.argv[2] == "uvloop":
        import uvloop
        uvloop.run(main())
    else:
        asyncio.run(main())

run()
"""
ROUTES = """\
backend: {url}
prefix: "{name}:"
routes:
  a.b: {{consumers: {{g: {{handler: "forking:{name}", concurrency: 3, retry: {{attempts: 1}}{more}}}}}}}
"""


@pytest.fixture(scope="module")
def redis_url(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


def run(folder: Path, url: str, name: str, ends: list[str], loop: str = "asyncio") -> Counter[str]:
    """Run a router with one message that forks for each end; return what the handlers printed."""
    (folder / "forking.py").write_text(HANDLERS)
    more = ", batch: {size: 4, wait: 1ms}" if name == "batch" else ""
    (folder / "routes.yaml").write_text(ROUTES.format(url=url, name=name, more=more))
    command = [sys.executable, "-c", PROGRAM, " ".join(ends), loop]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True
    ) as process:
        try:
            # The pipes close only when no copy of the process is left.
            printed, errors = process.communicate(timeout=HANG)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    return Counter(printed.splitlines())


def expected(ends: list[str]) -> Counter[str]:
    handled = [f"{what} {n} True" for n in range(MESSAGES) for what in ("begin", "end")]
    return Counter([*handled, *(f"{end}: code {ENDS[end]} True" for end in ends)])


@pytest.mark.parametrize("name", ["on_loop", "in_thread"])
@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_forked_child_uses_no_connection_of_its_parent(tmp_path, request, backend, name):
    url = f"sqlite:///{tmp_path}/q.db" if backend == "sqlite" else request.getfixturevalue("redis_url")
    assert run(tmp_path, url, name, ["exit"]) == expected(["exit"])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["on_loop", "in_thread", "batch", "pooled"])
def test_forked_child_ends_where_it_leaves_the_handler(tmp_path, name, loop):
    # Only an async handler awaits, and it awaits before it returns.
    ends = [end for end in ENDS if end != ("return" if name == "on_loop" else "await")]
    printed = run(tmp_path, "memory://", name, ends, loop)
    reached_their_end = Counter(f"end {n} False" for n in range(5, MESSAGES, 10))
    assert printed - reached_their_end == expected(ends)
