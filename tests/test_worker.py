"""A handler that interferes with the event loop does not end the router silently."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

from abe_router.backends import make_backend
from tests.limits import HANG

HANDLERS = """\
import asyncio

stray = []

async def handle(payload):
    if payload == "interrupt":
        print("begun", flush=True)
        raise KeyboardInterrupt
    if payload == "stop":
        asyncio.get_running_loop().stop()
    if payload == "exit":
        stray.append(asyncio.create_task(leave()))
        await asyncio.sleep(0.05)
    if payload == "cancel":
        for task in asyncio.all_tasks():
            task.cancel()
    print("begun", flush=True)

async def leave():
    raise SystemExit(3)

def handle_in_thread(payload):
    print("begun", flush=True)
    if payload == "interrupt":
        raise KeyboardInterrupt
"""
ROUTES = """\
backend: sqlite:///{folder}/q.db
defaults: {{drain: 2s, lease: 2s, retry: {{attempts: 1}}}}
routes:
  a.loop: {{consumers: {{g: "meddling:handle"}}}}
  a.thread: {{consumers: {{g: "meddling:handle_in_thread"}}}}
"""
#: A message whose handler would end the event loop, and a regular expression for the log line about it.
MEDDLING = [
    ("a.loop", "interrupt", "a.loop/g.*failed: KeyboardInterrupt"),
    ("a.thread", "interrupt", "a.thread/g.*failed: KeyboardInterrupt"),
    ("a.loop", "stop", "a handler has stopped the event loop: the router goes on"),
    ("a.loop", "exit", "a task of a handler raised SystemExit: the router goes on"),
]


def publish(folder: Path, key: str, payload: str) -> None:
    async def act() -> None:
        async with make_backend(f"sqlite:///{folder}/q.db") as backend:
            await backend.publish(key, payload)

    asyncio.run(act())


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    (folder / "meddling.py").write_text(HANDLERS)
    (folder / "routes.yaml").write_text(ROUTES.format(folder=folder))
    command = [sys.executable, "-m", "abe_router", "serve", "--log-format", "text"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_router_survives_handlers_that_would_end_its_loop(tmp_path, loop_environment):
    with serving(tmp_path, loop_environment) as process:
        for key, payload, _ in MEDDLING:
            for each in (payload, "plain"):
                publish(tmp_path, key, each)
                assert process.stdout.readline() == "begun\n"
        process.terminate()
        assert process.wait(HANG) == 0
        log = process.stderr.read()
    assert [line for _, _, line in MEDDLING if not re.search(line, log)] == []


def test_handler_that_cancels_all_tasks_makes_the_router_stop_with_a_log_line(tmp_path, loop_environment):
    with serving(tmp_path, loop_environment) as process:
        publish(tmp_path, "a.loop", "cancel")
        assert process.wait(HANG) == 1
        log = process.stderr.read()
        assert "a handler has cancelled the tasks of the router: the router stops" in log
        assert "stopped in" in log
