"""Backends on a file and on a Redis server of the tests, and distributions installed for one test."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from abe_router.backend import Backend
from abe_router.backends import make_backend
from abe_router.backends.redis import RedisBackend
from abe_router.backends.redis.health import rules
from abe_router.backends.redis.names import Names
from abe_router.backends.sqlite import SQLiteBackend
from abe_router.conformance import BackendConformance
from abe_router.testing import RedisServer
from chaos.redis_servers import RedisCluster
from tests.limits import HANG

from .tls import tls_missing

#: A provider as the guide of Abstract Backend shows it.
QUEUE = '''\
"""A queue for Abstract Backend, which publishes and consumes."""
import asyncio


class AcmeBackend:
    def __init__(self):
        self.sent = []
        self.queue = asyncio.Queue()

    @classmethod
    def from_env(cls):
        return cls()

    async def publish(self, key, payload):
        self.sent.append((key, payload))
        await self.queue.put(payload)

    async def consume(self, *, group=None):
        while True:
            yield await self.queue.get()
'''

#: The checks of the suite that run on several servers in the short form: the first of each subject, and all
#: that are about connections. In the others the provider does what it does on one server.
SHORT_FORM = {
    name
    for subject in BackendConformance.__mro__
    for number, name in enumerate(name for name in vars(subject) if name.startswith("test_"))
    if number == 0 or subject.__module__.rpartition(".")[2] in ("fault", "lifecycle")
}

Install = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        has_short_form = getattr(getattr(item, "cls", None), "has_short_form", False)
        if has_short_form and getattr(item, "originalname", "") not in SHORT_FORM:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Return a cluster of three masters with a replica each, which a module has for itself."""
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def no_tls(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what TLS wants on this machine, or an empty text if the Redis server has it."""
    return tls_missing(redis_program, tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def tls(no_tls: str) -> None:
    """Skip a test that needs TLS where the Redis server has none. Where CI is set, the test fails."""
    if no_tls:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(no_tls)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Yield a durable Redis for the whole run, and its user `least`, which has only the rights that we need.

    Without `redis-server` the tests are skipped, but they fail where CI is set.
    """
    if not RedisServer.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("redis-server is not installed")
    user = ["--user", "least", "on", ">right", *rules(Names(""))]
    with RedisServer(tmp_path_factory.mktemp("redis"), durable=True, options=user) as server:
        yield server


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """Yield a port that refuses connections: it is bound, so no other program listens there meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of `backend`."""
    return tmp_path / "queue.db"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SQLiteBackend]:
    """Yield an open backend on a SQLite file."""
    async with SQLiteBackend(path) as backend:
        yield backend


@pytest.fixture
def locked(path: Path, backend: SQLiteBackend) -> Iterator[sqlite3.Connection]:
    """Yield another connection to the file of `backend`."""
    other = sqlite3.connect(path, isolation_level=None)
    yield other
    other.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def each_backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """Yield an open backend of each kind, for a test that takes less than twenty seconds."""
    url: str = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/queue.db",
        "redis": lambda: request.getfixturevalue("abe_redis_url"),
    }[request.param]()
    async with asyncio.timeout(HANG), make_backend(url) as backend:
        yield backend


@pytest.fixture
def prefix() -> str:
    """Return a prefix that no name on the server begins with."""
    return f"t{secrets.token_hex(4)}."


@pytest.fixture
async def redis_backend(redis_server: RedisServer, prefix: str) -> AsyncIterator[RedisBackend]:
    """Yield a backend on the server, under the prefix."""
    async with RedisBackend.from_url(redis_server.url, prefix=prefix) as backend:
        yield backend


@pytest.fixture
async def redis_client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Yield a client of another library, with which tests do what other programs do."""
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a module and the entry points of its distribution."""
    monkeypatch.syspath_prepend(tmp_path)
    for variable in ("QUEUE_BACKEND", "REDIS_URL", "SQLITE_PATH"):
        monkeypatch.delenv(variable, raising=False)

    def install(distribution: str, module: str, code: str = QUEUE, **groups: dict[str, str]) -> Path:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        lines = []
        for group, points in groups.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (tmp_path / f"{module}.py").write_text(code)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return tmp_path

    return install


@pytest.fixture
def acme(install: Install) -> None:
    """Install a provider for Abstract Backend called `acme`."""
    install("acme-queue", "acme_queue", **{"abe.backends.message_queue": {"acme": "acme_queue:AcmeBackend"}})
