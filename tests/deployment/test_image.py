"""The image: its steps run, and its command works on a read-only root, as PID 1 and without rights."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from abe_router.testing.redis_server import RedisServer, free_port
from tests.limits import HANG

from .files import BUILD, COMPOSE, FOLDER, IMAGE, MANIFESTS, ROUTES, config_map, container, load
from .sandbox import Sandbox, add_dependencies, make_wheel, variables

pytestmark = [pytest.mark.timeout(180), pytest.mark.heavy(15)]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """Return an empty sandbox."""
    made = Sandbox(tmp_path / "root")
    command = made.command(["true"], user=10001, read_only=True)
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"namespaces are not allowed here: {tried.stderr.strip()}")
    return made


class Pod:
    """Runs containers of the image, with the routes file of a ConfigMap and the tokens of a Secret."""

    def __init__(self, sandbox: Sandbox, backend: str) -> None:
        self._sandbox = sandbox
        self.listen, self.probes = free_port(), free_port()
        self._environment = variables({**IMAGE.environment(), "ABE_ROUTER_BACKEND": backend})
        (self._folder,) = IMAGE.all("WORKDIR")
        self._config = sandbox.path("/config")
        self._config.mkdir()
        self._config.chmod(0o777)  # as the folder of a volume is
        for token in ROUTES["http"]["tokens"].values():
            path = sandbox.path(token["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name}-{'t' * 32}")

    def mount_config_map(self, version: str, **renamed: str) -> None:
        """Put a version of the ConfigMap into force as Kubernetes does: by one rename of a symbolic link."""
        (self._config / f"..{version}").mkdir()
        addresses = {
            ROUTES["http"]["listen"]: f"127.0.0.1:{self.listen}",
            ROUTES["http"]["probes"]: f"127.0.0.1:{self.probes}",
        }
        for name, text in config_map()["data"].items():
            for old, new in {**addresses, **renamed}.items():
                text = text.replace(old, new)
            (self._config / f"..{version}" / name).write_text(text)
            if not (self._config / name).is_symlink():
                (self._config / name).symlink_to(f"..data/{name}")
        (self._config / "..data_tmp").symlink_to(f"..{version}")
        (self._config / "..data_tmp").rename(self._config / "..data")

    async def start(self, command: list[str], stderr: int | IO[bytes]) -> asyncio.subprocess.Process:
        """Run a command as the user of the image, on a root that cannot be written to."""
        line = self._sandbox.command(command, user=10001, read_only=True, folder=self._folder)
        return await asyncio.create_subprocess_exec(*line, env=self._environment, stdout=PIPE, stderr=stderr)

    async def execute(self, *command: str) -> tuple[int | None, str]:
        """Return the exit code of a command, and what it prints."""
        process = await self.start([*command], STDOUT)
        output, _ = await process.communicate()
        return process.returncode, output.decode()

    @asynccontextmanager
    async def running(self, command: list[str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a command until its probes are answered, and stop it; it must exit with 0."""
        with log.open("wb") as file:
            process = await self.start(command, file)
        try:
            for path in ("startupz", "livez", "readyz"):
                await until_answered(f"http://127.0.0.1:{self.probes}/{path}")
            yield process
            os.kill(only_child(process.pid), signal.SIGTERM)
            async with asyncio.timeout(HANG):
                assert await process.wait() == 0
        except BaseException:
            print(log.read_text())  # noqa: ASYNC240  for the report of the test
            raise
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    def ask(self, path: str, host: str) -> str:
        """Return what the API answers to the viewer, under the name of a server."""
        headers = {"Authorization": f"Bearer viewer-{'t' * 32}", "Host": host}
        return get(f"http://127.0.0.1:{self.listen}{path}", **headers)


def get(url: str, **headers: str) -> str:
    with urlopen(Request(url, headers=headers), timeout=10) as answer:
        return str(answer.read().decode())


async def until_answered(url: str) -> None:
    """Wait until a URL is answered with 200."""
    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(get, url)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


async def scraped(folder: Path, address: str) -> list[str]:
    """Let Prometheus scrape an address with the shipped configuration, and return its alerts."""
    program = shutil.which("prometheus")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("prometheus is not installed")
    configuration = load("prometheus.yaml")
    configuration["global"]["scrape_interval"] = "1s"
    (job,) = configuration["scrape_configs"]
    # The name of the service is known in the network of Compose alone.
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [address]}]
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    shutil.copy(FOLDER / "alerts.yaml", folder)
    port = free_port()
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(str(program), *arguments, stderr=DEVNULL)
    try:
        await until_answered(f"http://127.0.0.1:{port}/-/ready")
        async with asyncio.timeout(HANG):
            while True:
                answer = json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?query=abe_router_build_info"))
                if answer["data"]["result"]:
                    break
                await asyncio.sleep(0.1)
        groups = json.loads(get(f"http://127.0.0.1:{port}/api/v1/rules"))["data"]["groups"]
        return [rule["name"] for group in groups for rule in group["rules"]]
    finally:
        process.kill()
        await process.wait()


def only_child(pid: int) -> int:
    """Return the child of `unshare`: PID 1 of the container."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def problems(log: Path) -> list[str]:
    """Return the lines of a log that are more than information."""
    return [line for line in log.read_text().splitlines() if re.search(r"\b(warning|error|critical)\b", line)]


@pytest.fixture
def built(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox with the files of the image."""
    make_wheel(sandbox.wheels)
    sandbox.build(BUILD)
    (site,) = sandbox.root.glob("venv/lib/*/site-packages")
    add_dependencies(site)
    # The modules are compiled.
    assert list((site / "abe_router" / "__pycache__").iterdir())
    assert list(sandbox.path("/app/__pycache__").iterdir())
    return sandbox


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Yield a server with the options of the Compose file."""
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisServer(tmp_path, options=COMPOSE["services"]["redis"]["command"][1:]) as server:
        yield server


async def test_image_is_built_serves_follows_a_config_map_and_stops(tmp_path, built, redis):
    pod = Pod(built, redis.url)
    pod.mount_config_map("v1")
    code, output = await pod.execute("abe-router", "doctor")
    assert code == 0, output

    async with pod.running(IMAGE.command(), tmp_path / "router.log") as router:
        check = [word.replace("8471", str(pod.probes)) for word in IMAGE.health_check()]
        assert await pod.execute(*check) == (0, "")
        code, _ = await pod.execute(*(word.replace("/livez", "/missing") for word in check))
        assert code == 1
        code, output = await pod.execute("touch", "/app/x")
        assert (code, "Read-only file system" in output) == (1, True)

        code, output = await pod.execute("abe-router", "publish", "orders.created", '{"id": 1, "total": 250}')
        assert code == 0, output
        assert router.stdout is not None
        async with asyncio.timeout(HANG):
            assert await router.stdout.readline() == b"charged 250 for order 1\n"

        assert "AbeRouterBackendDown" in await scraped(tmp_path, f"127.0.0.1:{pod.probes}")

        pod.mount_config_map("v2", **{"billing: ": "invoicing: ", "/billing": "/invoicing"})
        async with asyncio.timeout(HANG):
            while "orders.created/invoicing" not in pod.ask("/v1/routes", "abe-router"):
                await asyncio.sleep(0.05)
    assert problems(tmp_path / "router.log") == []

    trigger = MANIFESTS["ScaledObject", "abe-router"]["spec"]["triggers"][0]["metadata"]
    url = urlsplit(trigger["url"])
    async with pod.running(container("abe-router-api")["args"], tmp_path / "api.log"):
        scale = json.loads(pod.ask(f"{url.path}?{url.query}", url.netloc))
        assert isinstance(scale[trigger["valueLocation"]], int)
    assert problems(tmp_path / "api.log") == []
