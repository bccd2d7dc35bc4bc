"""The server beside the workers of `abe-router serve`: start, edits, drain, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from abe_router.http.tokens import TOKEN_FILE
from tests.limits import HANG

HANDLERS = """\
import asyncio, time

async def wait(payload):
    await asyncio.sleep(payload["seconds"])

async def block(payload):
    time.sleep(payload["seconds"])
"""
ROUTES = """\
backend: {backend}
http: {http}
routes:
  orders.created:
    consumers:
      billing: {{handler: "shop:wait", drain: 20s}}
  orders.blocking:
    consumers: {{audit: "shop:block"}}
"""
ONE = "{listen: 127.0.0.1:0, probes: 127.0.0.1:0}"


class Running:
    """`abe-router serve` with its log."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder, self.process = folder, process
        self.log: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())
        self.client = httpx.AsyncClient(trust_env=False, timeout=HANG)

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            if line.startswith(b"{"):
                self.log.append(json.loads(line))
            else:
                self.plain.append(line.decode())
            self._changed.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        try:
            async with asyncio.timeout(40):
                while not (found := condition()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.log[-8:]} {self.plain}") from None
        return found

    def logged(self, text: str) -> list[str]:
        return [record["message"] for record in self.log if text in record["message"]]

    async def address(self, what: str = "the HTTP server", number: int = 1) -> str:
        """Return the address that was logged as the first, second, ... one of a listener."""
        found = await self.until(
            lambda: (said := self.logged(f"{what} listens at")) and len(said) >= number and said
        )
        return str(found[number - 1].rpartition(" ")[2])

    async def get(self, address: str, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(address + path, headers=headers)

    async def ready(self, address: str) -> None:
        async with asyncio.timeout(40):
            while (await self.get(address, "/readyz")).status_code != 200:
                await asyncio.sleep(0.02)

    def token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.folder / TOKEN_FILE).read_text().strip()}"}

    async def publish(self, address: str, key: str, seconds: float) -> None:
        url = f"{address}/v1/publish/{key}"
        answer = await self.client.post(url, json={"seconds": seconds}, headers=self.token())
        assert answer.status_code == 202, answer.text

    async def ended(self) -> int:
        async with asyncio.timeout(40):
            await self._reading
            return await self.process.wait()


@asynccontextmanager
async def serving(folder: Path, *options: str, backend: str = "", http: str = ONE) -> AsyncIterator[Running]:
    (folder / "shop.py").write_text(HANDLERS)
    backend = backend or f"sqlite:///{folder}/log.db"
    (folder / "routes.yaml").write_text(ROUTES.format(backend=backend, http=http))
    async with started(folder, *options) as run:
        yield run


@asynccontextmanager
async def started(folder: Path, *options: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "abe_router", "serve", "-v", "--log-format", "json", *options),
        stderr=PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ABE_ROUTER_BACKEND": ""},
    )
    run = Running(folder, process)
    try:
        yield run
    finally:
        await run.client.aclose()
        if process.returncode is None:
            process.kill()
        await run.ended()


async def test_one_worker_has_a_supervisor_that_serves_until_the_drain_has_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as run:
        api = await run.address()
        assert (await run.get(api, "/livez")).status_code == 200  # before the worker has started
        probes = await run.address("the second listener, for probes and metrics,")
        await run.ready(api)
        assert (await run.get(probes, "/readyz")).status_code == 200
        assert (await run.get(probes, "/v1/status")).status_code == 404
        assert (await run.get(api, "/v1/status")).status_code == 401
        mode = (tmp_path / TOKEN_FILE).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        status = await run.get(api, "/v1/status", **run.token())
        assert status.json()["routes"][0]["route"] == "orders.created/billing"
        assert run.token()["Authorization"].split()[1] not in json.dumps(run.log)

        tokens = "{ops: {file: ops, roles: viewer}, dev: {file: dev, roles: reader}}"
        http = f"{{listen: 127.0.0.1:0, tokens: {tokens}, hosts: ops.example.com}}"
        (tmp_path / "ops").write_text("token-of-the-operators")
        (tmp_path / "dev").write_text("token-of-a-developer")
        text = ROUTES.format(backend=f"sqlite:///{tmp_path}/log.db", http=http)
        (tmp_path / "routes.yaml").write_text(text)
        ops = {"Authorization": "Bearer token-of-the-operators"}
        async with asyncio.timeout(HANG):
            while (await run.get(api, "/v1/status", **ops)).status_code != 200:
                await asyncio.sleep(0.02)
        assert (await run.get(api, "/v1/status", **run.token())).status_code == 401
        with suppress(httpx.TransportError):  # the second listener ends
            async with asyncio.timeout(HANG):
                while True:
                    await run.get(probes, "/livez")
        named = await run.get(api, "/v1/status", **ops, Host="ops.example.com")
        assert named.status_code == 200
        assert len(run.logged("started, handler")) == 2  # no consumer has restarted

        (tmp_path / "routes.yaml").write_text(text.replace("127.0.0.1:0", "localhost:0"))
        moved = await run.address(number=2)
        assert (await run.get(moved, "/v1/status", **ops)).status_code == 200
        async with asyncio.timeout(HANG):
            while len(edits := (await run.get(moved, "/v1/edits", **ops)).json()) < 3:
                await asyncio.sleep(0.05)
        assert [edit["record"]["number"] for edit in edits] == [3, 2, 1]
        assert (await run.get(moved, "/v1/edits/1", **ops)).status_code == 403
        dev = {"Authorization": "Bearer token-of-a-developer"}
        files = (await run.get(moved, "/v1/edits/1", **dev)).json()
        assert files["files"][files["routes"]].startswith("backend: ")
        assert "+http: {listen: localhost:0" in (await run.get(moved, "/v1/edits/3/diff", **dev)).text
        assert (await run.get(moved, "/v1/edits/99", **dev)).status_code == 404
        assert run.process.returncode is None


async def test_one_signal_drains_while_the_server_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as run:
        api = await run.address()
        await run.ready(api)
        await run.publish(api, "orders.created", 1.5)
        async with asyncio.timeout(HANG):
            while True:
                found = (await run.get(api, "/v1/status", **run.token())).json()
                if found["routes"][0]["in_flight"]:
                    break
                await asyncio.sleep(0.05)
        stream = asyncio.create_task(run.get(api, "/v1/events", **run.token()))
        await asyncio.sleep(0.3)
        assert not stream.done()
        run.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(HANG):
            while (await run.get(api, "/readyz")).status_code == 200:
                await asyncio.sleep(0.01)
        draining = await run.get(api, "/readyz")
        assert draining.text == "draining\n"
        assert (await run.get(api, "/livez")).status_code == 200
        url = f"{api}/v1/publish/orders.created"
        refused = await run.client.post(url, json={"seconds": 0}, headers=run.token())
        assert refused.status_code == 503
        assert not stream.done()  # it shows the drain to its end
        assert await run.ended() == 0  # the handler was finished
        assert (await stream).text.count("\n\n") > 1
        assert run.logged("abandoned") == []
        assert run.plain == []


async def test_memory_is_served_by_the_process_that_runs_the_handlers(tmp_path: Path) -> None:
    async with serving(tmp_path, backend="memory://") as run:
        api = await run.address()
        await run.ready(api)
        assert len(run.logged("the HTTP server listens at")) == 1  # at the address of the file from the start
        await run.publish(api, "orders.created", 0)
        assert (await run.get(api, "/v1/status", **run.token())).status_code == 200
        assert run.logged("(pid") == []
        await end_and_begin_serving(run, api)
        assert len(run.logged("started, handler")) == 2  # no consumer has restarted
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0


async def end_and_begin_serving(run: Running, api: str) -> str:
    """Take `http` out of the file and put it back in; return the second address."""
    path = run.folder / "routes.yaml"
    text = path.read_text()
    path.write_text(re.sub("(?m)^http: .*$", "", text))
    await run.until(lambda: run.logged("the HTTP server has ended: the routes file has no `http`"))
    with pytest.raises(httpx.TransportError):
        await run.get(api, "/livez")
    path.write_text(text)
    again = await run.address(number=2)
    await run.ready(again)
    assert (await run.get(again, "/v1/status", **run.token())).status_code == 200
    return again


async def test_an_edit_begins_and_ends_serving_beside_a_supervisor(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as run:
        api = await run.address()
        await run.ready(api)
        api = await end_and_begin_serving(run, api)
        path = tmp_path / "routes.yaml"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = path.read_text()
            path.write_text(re.sub("(?m)^http: .*$", "", text))
            await run.until(lambda: len(run.logged("the HTTP server has ended")) == 2)
            path.write_text(text.replace("shop:block", "shop:missing"))
            await run.until(lambda: run.logged("edit rejected, nothing changed"))
            await asyncio.sleep(1.2)  # the server does not begin by an edit that the workers reject
            assert len(run.logged("the HTTP server listens")) == 2
            path.write_text(re.sub("(?m)^http: .*$", f"http: {{listen: 127.0.0.1:{port}}}", text))
            await run.until(lambda: run.logged("the HTTP server cannot start: cannot listen"))
        await run.ready(api := await run.address(number=3))  # the port is free again
        revision = (await run.get(api, "/healthz", **run.token())).json()["revision"]
        text = path.read_text().replace("orders.created", "orders.made")
        path.write_text(text.replace("shop:block", "shop:missing"))
        await run.until(lambda: len(run.logged("edit rejected, nothing changed")) == 2)
        await asyncio.sleep(1.2)  # the server has read the file too, and it sees no fault
        assert (await run.get(api, "/healthz", **run.token())).json()["revision"] == revision
        await run.publish(api, "orders.created", 0)
        path.write_text(text)
        async with asyncio.timeout(HANG):
            while (await run.get(api, "/healthz", **run.token())).json()["revision"] == revision:
                await asyncio.sleep(0.05)
        await run.publish(api, "orders.made", 0)
        assert len(run.logged("the HTTP server cannot start")) == 1
        assert len(run.logged("started, handler")) == 6  # only that of the route whose key has changed


async def test_a_worker_alone_serves_after_an_edit(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(HANDLERS)
    path, text = tmp_path / "routes.yaml", ROUTES.format(backend=f"sqlite:///{tmp_path}/log.db", http=ONE)
    path.write_text(re.sub("(?m)^http: .*$", "", text))
    async with started(tmp_path) as run:
        await run.until(lambda: run.logged("running 2 routes"))
        path.write_text(text)
        api = await run.address()
        await run.ready(api)
        text = "until a restart, the HTTP server shares the event loop of the handlers"
        await run.until(lambda: run.logged(text))
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_livez_answers_at_once_while_every_worker_blocks(tmp_path: Path) -> None:
    async with serving(tmp_path, "--workers", "2") as run:
        api = await run.address()
        await run.ready(api)
        for _ in range(20):
            await run.publish(api, "orders.blocking", 2)
        await asyncio.sleep(0.5)
        times = []
        for _ in range(500):
            began = time.perf_counter()
            assert (await run.get(api, "/livez")).status_code == 200
            times.append(time.perf_counter() - began)
        # 1 to 2 ms on an idle machine. A busy one delays some answers; blocked workers would delay all.
        assert median(times) < 0.05


async def test_bodies_of_many_small_items_take_little_memory(tmp_path: Path) -> None:
    bodies = [
        ("application/cloudevents-batch+json", b"[" + b"0," * 4_000_000 + b"0]"),
        ("application/cloudevents-batch+json", b"[" + b"{}," * 2_700_000 + b"{}]"),
        ("application/cloudevents-batch+json", b'[{"data":[' + b"[]," * 2_700_000 + b"[]]}]"),
        ("application/x-ndjson", b"0\n" * 200_000),
        ("application/json", b"[" + b"0," * 500_000 + b"0]"),
    ]
    async with serving(tmp_path) as run:
        api = await run.address()
        await run.ready(api)
        status = Path(f"/proc/{run.process.pid}/status")

        def most() -> int:
            """Return the most memory that the supervisor has had, in KiB."""
            return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])

        before = most()
        for kind, body in bodies:
            headers = {**run.token(), "Content-Type": kind}
            answer = await run.client.post(f"{api}/v1/publish/orders.x", content=body, headers=headers)
            assert answer.status_code in (200, 400, 404, 413)
            assert most() - before < 64 * 1024, f"{kind} {body[:20]!r}"
