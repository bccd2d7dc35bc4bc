"""A handler that interferes with the event loop does not end the router silently."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

pytestmark = pytest.mark.timeout(60)
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
routes:
  a.b: {{consumers: {{g: {{handler: "meddling:{name}", drain: 2s, lease: 2s, retry: {{attempts: 1}}}}}}}}
"""


@pytest.fixture(params=["uvloop", "asyncio"])
def environment(request, tmp_path):
    """Return an environment in which `serve` runs on uvloop or on asyncio."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    if request.param == "asyncio":
        (hidden / "uvloop.py").write_text("raise ImportError")
    return {**os.environ, "PYTHONPATH": str(hidden)}


def publish(folder: Path, payload: str) -> None:
    command = [sys.executable, "-m", "abe_router", "publish", "a.b", f'"{payload}"']
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def serving(folder: Path, environment: dict[str, str], name: str) -> Iterator[subprocess.Popen[str]]:
    (folder / "meddling.py").write_text(HANDLERS)
    (folder / "routes.yaml").write_text(ROUTES.format(folder=folder, name=name))
    command = [sys.executable, "-m", "abe_router", "serve", "--log-format", "text"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "payload", "logged"),
    [
        ("handle", "interrupt", "failed: KeyboardInterrupt"),
        ("handle_in_thread", "interrupt", "failed: KeyboardInterrupt"),
        ("handle", "stop", "a handler has stopped the event loop: the router goes on"),
        ("handle", "exit", "a task of a handler raised SystemExit: the router goes on"),
    ],
)
def test_the_router_survives_a_handler_that_would_end_its_loop(tmp_path, environment, name, payload, logged):
    with serving(tmp_path, environment, name) as process:
        for each in (payload, "plain"):
            publish(tmp_path, each)
            assert process.stdout.readline() == "begun\n"
        process.terminate()
        assert process.wait(10) == 0
        assert logged in process.stderr.read()


def test_a_handler_that_cancels_all_tasks_makes_the_router_stop_and_say_so(tmp_path, environment):
    with serving(tmp_path, environment, "handle") as process:
        publish(tmp_path, "cancel")
        assert process.wait(10) == 1
        log = process.stderr.read()
        assert "a handler has cancelled the tasks of the router: the router stops" in log
        assert "stopped in" in log
