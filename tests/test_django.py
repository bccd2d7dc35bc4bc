"""The Django example, run as its README describes: a web server, a worker, and real requests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("django")
httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

EXAMPLE = Path(__file__).parent.parent / "examples" / "django_app"


@pytest.fixture
def project(tmp_path):
    return Path(shutil.copytree(EXAMPLE, tmp_path / "project", ignore=shutil.ignore_patterns("*.db*")))


@pytest.fixture
def run(project):
    """Return a function that runs Python in the project; processes that still run at the end are killed."""
    environment = {name: value for name, value in os.environ.items() if name != "QUEUE_URL"}
    background = []

    def run(*arguments, wait=True):
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if wait:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0, out
        else:
            background.append(process)
        return process

    yield run
    for process in background:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def ask(method, url, **options):
    """Send a request, again while the server starts."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.request(method, url, **options)
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_an_order_goes_from_a_request_to_the_worker_and_both_processes_end_cleanly(run):
    run("manage.py", "migrate", "--run-syncdb", "--verbosity", "0")
    worker = run("manage.py", "run_router", wait=False)
    address = f"http://127.0.0.1:{(port := free_port())}/orders"
    server = run("-m", "uvicorn", "shop.asgi:application", "--port", str(port), wait=False)

    assert ask("POST", address, json={"total": 250}).status_code == 202
    refused = ask("POST", address, json={"total": -1})
    assert (refused.status_code, "/total: minimum" in refused.json()["error"]) == (422, True)
    deadline = time.monotonic() + 60
    while not (orders := ask("GET", address).json())[0]["charged"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert orders == [{"id": 1, "total": 250.0, "charged": True}]

    for process in (server, worker):
        process.send_signal(signal.SIGTERM)
    output = {process: process.communicate(timeout=60)[0] for process in (server, worker)}
    assert worker.returncode == 0, output[worker]
    assert server.returncode in (0, -signal.SIGTERM), output[server]  # uvicorn raises the signal again
    assert "Application shutdown complete" in output[server]
    assert "Traceback" not in output[server] + output[worker]


def test_a_router_that_cannot_start_fails_the_server_with_the_reason(run, project):
    (project / "routes.yaml").write_text(
        "backend: sqlite:////nowhere/at/all.db\nroutes:\n  orders.created: {}\n"
    )
    server = run("-m", "uvicorn", "shop.asgi:application", "--port", str(free_port()), wait=False)
    output, _ = server.communicate(timeout=60)
    assert server.returncode == 3
    assert "/nowhere/at" in output
