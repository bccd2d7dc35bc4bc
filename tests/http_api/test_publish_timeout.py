"""The time limit of a publish, on a frozen Redis server and on a SQLite file that another process locks."""

from __future__ import annotations

import asyncio
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from abe_router import Router, load_backend
from abe_router.backends import make_backend
from abe_router.cli import root
from abe_router.errors import PublishTimeout
from abe_router.routing.table import RouteTable
from abe_router.testing import RedisServer

from .running import serving

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@dataclass
class Storage:
    url: str
    freeze: Callable[[], Any]
    #: Whether what was on its way when it froze is accepted once it thaws.
    is_accepted_later: bool


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    command = [sys.executable, "-c", LOCK, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield


@pytest.fixture(params=["redis", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "sqlite":
        path = tmp_path / "queue.db"
        yield Storage(f"sqlite:///{path}", lambda: locked(path), is_accepted_later=False)
        return
    request.getfixturevalue("redis_program")
    with RedisServer(tmp_path) as server:
        yield Storage(server.url, lambda: stopped(server), is_accepted_later=True)


async def timed_out(publish: Any, limit: float) -> PublishTimeout:
    """Return the error of a publish that ends after its limit, and before a wait half a second longer."""
    began = asyncio.get_running_loop().time()
    running, control = asyncio.ensure_future(publish), asyncio.ensure_future(asyncio.sleep(limit + 0.5))
    await asyncio.wait([running, control], return_when=asyncio.FIRST_COMPLETED)
    assert running.done()
    assert asyncio.get_running_loop().time() - began >= limit
    control.cancel()
    error = running.exception()
    assert isinstance(error, PublishTimeout)
    return error


async def payloads(url: str) -> list[Any]:
    async with make_backend(url) as backend:
        return sorted(each.message.payload for each in await backend.peek("#", None))


@pytest.mark.alone
def test_publish_ends_within_its_limit_and_says_what_became_of_the_message(
    storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "routes.yaml").write_text("routes:\n  orders: {dedupe: 1h}\n  lines: {}\n")

    async def run() -> list[PublishTimeout]:
        url = f"{storage.url}?timeout=1"
        async with (
            Router.from_file(tmp_path / "routes.yaml", backend=url, consume=False, watch=False) as router,
            load_backend(url) as backend,
        ):
            await router.publish("lines", 0)
            await backend.publish("lines", 1)
            with storage.freeze():
                sent = await asyncio.gather(
                    timed_out(router.publish("lines", 2), 1),
                    timed_out(router.publish("orders", 3, id="3"), 1),
                    timed_out(router.publish("lines", 4, timeout=0.4), 0.4),
                    timed_out(router.publish("orders", 5, id="5", timeout=1.6), 1.6),
                    timed_out(backend.publish("lines", 6), 1),
                    timed_out(backend.publish("lines", 7, timeout=0.4), 0.4),
                )
                # Fill what Redis may have under way, so that the last ones never leave.
                for number in (8, 9):
                    await timed_out(router.publish("lines", number, timeout=0.1), 0.1)
                queued = await timed_out(router.publish("lines", 10, timeout=0.1), 0.1)
                assert not queued.sent
                assert str(queued).endswith("; the message was not sent, so it can be published again")
            await router.publish("orders", 5, id="5")  # under `dedupe`, to publish it again is safe
            return list(sent)

    errors = asyncio.run(run())
    found = asyncio.run(payloads(storage.url))
    assert found.count(5) == 1
    assert 10 not in found
    for error, number in zip(errors, range(2, 8), strict=True):
        assert error.sent is storage.is_accepted_later
        assert pickle.loads(pickle.dumps(error)).sent is error.sent
        if not error.sent:
            assert number == 5 or number not in found
        else:
            assert "may have been accepted: publish it again with its id, under `dedupe`" in str(error)


@pytest.mark.alone
def test_publish_of_many_ends_within_one_time_limit(storage: Storage) -> None:
    async def run() -> None:
        async with make_backend(f"{storage.url}?timeout=0.6") as backend:
            messages = [await backend.publish("lines", 0)] * 3_000
            with storage.freeze():
                await timed_out(backend.append(messages), 0.6)
                await timed_out(backend.append_once([(each, 60.0) for each in messages]), 0.6)
                await timed_out(backend.append_within([(each, 0.0) for each in messages], 0.3), 0.3)

    asyncio.run(run())


@pytest.mark.alone
def test_command_line_says_that_a_message_was_not_sent_in_time(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABE_ROUTER_BACKEND", f"{storage.url}?timeout=0.5")
    monkeypatch.delenv("ABE_ROUTER_CONFIG", raising=False)
    (tmp_path / "routes.yaml").write_text("routes:\n  orders: {}\n")
    (tmp_path / "lines").write_text("1\n2\n")
    asyncio.run(payloads(storage.url))
    with storage.freeze():
        for command in (["2"], ["--ndjson", "lines"], ["2", "--timeout", "0.2"]):
            capsys.readouterr()
            assert root.run(["publish", "orders", *command]) == 69
            said = "has not answered within the time limit of the publish; the message was not sent"
            assert said in capsys.readouterr().err
    assert asyncio.run(payloads(storage.url)) == []


async def test_http_answers_503_and_says_what_became_of_the_message(storage: Storage) -> None:
    url = f"{storage.url}?timeout=0.5"
    async with serving(RouteTable(keys=("orders",), backend=url), make_backend(url)) as api:
        assert (await api.post("/v1/publish/orders", b"1")).status_code == 202
        with storage.freeze():
            one = await api.post("/v1/publish/orders", b"2")
            many = await api.post("/v1/publish/orders", b"3\n4\n", "application/x-ndjson")
        kind = "outcome-unknown" if storage.is_accepted_later else "backend-unavailable"
        problems = [one.json(), *map(json.loads, many.text.splitlines())]
        assert [problem["type"].rpartition("#")[2] for problem in problems] == [kind] * 3
        assert {problem["status"] for problem in problems} == {503}
