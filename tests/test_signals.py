"""A handler cannot delay a forced exit."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from abe_router.backends import make_backend
from abe_router.process.signals import GRACE
from tests.limits import HANG

HANDLERS = """\
import asyncio, multiprocessing, os, signal, threading, time

async def block(payload):
    print("begun", flush=True)
    time.sleep(50)

async def deaf(payload):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.siginterrupt(number, False)  # the read goes on, and Python does not run
    print("begun", flush=True)
    os.read(os.pipe()[0], 1)

async def swallow(payload):
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(50)
        except asyncio.CancelledError:
            pass

async def pooled(payload):
    await asyncio.to_thread(block_thread)

async def threaded(payload):
    threading.Thread(target=block_thread).start()

async def listen(payload):
    heard = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, heard.set)
    print("begun", flush=True)
    await heard.wait()
    print("heard", flush=True)

async def fork(payload):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(50,))
    child.start()
    child.terminate()
    child.join()
    print("begun", child.exitcode, flush=True)

def block_thread(payload=None):
    print("begun", flush=True)
    time.sleep(50)
"""
ROUTES = """\
backend: sqlite:///{folder}/shop.db
routes:
  a.b: {{consumers: {{g: {{handler: "stuck_handlers:{name}", timeout: {timeout}}}}}}}
"""
#: Limit for an exit, in seconds. It takes 1.5 s on an idle machine; a handler blocks for 50 s.
LIMIT = 6


async def publish(url: str) -> None:
    async with make_backend(url) as backend:
        await backend.publish("a.b", 1)


@contextmanager
def busy(
    folder: Path,
    name: str,
    environment: dict[str, str],
    *options: str,
    timeout: str = "30s",
    says: str = "begun",
) -> Iterator[subprocess.Popen[str]]:
    """Run a router whose handler has started and does not end."""
    (folder / "stuck_handlers.py").write_text(HANDLERS)
    (folder / "routes.yaml").write_text(ROUTES.format(folder=folder, name=name, timeout=timeout))
    asyncio.run(publish(f"sqlite:///{folder}/shop.db"))
    serve = [sys.executable, "-m", "abe_router", "serve", *options]
    with subprocess.Popen(serve, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{says}\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("block", signal.SIGTERM),
        ("block", signal.SIGINT),
        ("deaf", signal.SIGTERM),
        ("swallow", signal.SIGTERM),
    ],
)
def test_second_signal_ends_the_process_despite_a_blocking_handler(tmp_path, loop_environment, name, number):
    with busy(tmp_path, name, loop_environment) as process:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(number)
        assert process.wait(GRACE + 10) == 128 + number


def test_signal_to_a_process_that_a_handler_forked_ends_that_process_alone(tmp_path, loop_environment):
    with busy(tmp_path, "fork", loop_environment, says=f"begun {-signal.SIGTERM}") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(GRACE + 10) == 0


def test_handler_may_listen_to_a_signal_of_its_own(tmp_path, loop_environment):
    with busy(tmp_path, "listen", loop_environment) as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "heard\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(GRACE + 10) == 0


def test_handler_that_ignores_its_cancellation_does_not_outlast_the_drain_time(tmp_path, loop_environment):
    with busy(tmp_path, "swallow", loop_environment, "--drain", "0.2") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == 1


@pytest.mark.parametrize(
    ("name", "timeout", "code"),
    [
        ("block", "30s", 1),
        ("deaf", "30s", 1),
        ("block_thread", "30s", 1),
        ("pooled", "100ms", 0),
        ("threaded", "30s", 0),
    ],
)
def test_signal_ends_the_process_within_its_drain_time_and_a_second(
    tmp_path, loop_environment, name, timeout, code, control
):
    with busy(tmp_path, name, loop_environment, "--drain", "0.5", timeout=timeout) as process:
        if timeout == "100ms":
            time.sleep(0.5)  # so that it is over, and its outcome is stored
        began = time.time()
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == code
        assert control.since(began) < LIMIT
