"""The storage of the router under test: a SQLite file, or a Redis server that can be killed and restarted."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import redis

from abe_router.backends.redis.finder import slot_of
from abe_router.backends.redis.layout import Layout
from abe_router.backends.redis.names import CLUSTER_TAG
from abe_router.testing.redis_server import RedisServer, free_port, server_program
from chaos.redis_servers import RedisCluster, RedisSentinels
from chaos.routes_file import KEY

#: Longest time until a started server answers, in seconds.
PATIENCE = 10.0
#: Time without an answer after which a worker considers a connection dead, in seconds.
ANSWER_TIMEOUT = 1.0


class SQLiteStorage:
    """A SQLite file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "messages.db"
        self.url = f"sqlite:///{self.path}"

    async def start(self) -> None:
        """Do nothing: the first process creates the file."""

    def is_locked(self, patience: float) -> bool:
        """Return whether another process holds the lock of the file for `patience` seconds."""
        try:
            with closing(sqlite3.connect(self.path, timeout=patience, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
        return False

    async def stop(self) -> None:
        """Do nothing: there is no server."""


class RedisStorage:
    """A Redis server on a free port, which syncs every command to disk before it answers.

    `options` override the settings of redis.conf.
    """

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "logfile": "redis.log",
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None
        #: Held while the server is down, so that only one fault at a time stops it.
        self.down = asyncio.Lock()
        #: A connection to the server that bypasses the proxy.
        self.client = redis.Redis(port=self.port, socket_timeout=PATIENCE)

    @staticmethod
    def installed() -> bool:
        """Return whether a server is installed."""
        return server_program() is not None

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the URL of the server behind another port of this machine."""
        return f"redis://127.0.0.1:{port}/0?socket_timeout={ANSWER_TIMEOUT:g}"

    async def start(self) -> None:
        """Start the server on its data; return when it answers."""
        program = server_program()
        assert program, "redis-server is not installed"
        arguments = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > until:
                raise RuntimeError(f"redis-server does not answer; see {self._folder / 'redis.log'}")
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Kill the server."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Delete the data of a killed server."""
        shutil.rmtree(self._folder / "appendonlydir")

    async def stop(self) -> None:
        """Stop the server."""
        self.client.close()
        self.kill()

    def ask(self, *command: Any) -> Any:
        """Return the server's reply to a command."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]  # it has no types

    def messages(self, *keys: str) -> dict[str, int]:
        """Return the numbers of the messages in the streams of these keys, by message id."""
        entries: list[Any] = [entry for key in keys for entry in cast("Any", self.client.xrange(key))]
        return {fields[b"id"].decode(): json.loads(fields[b"data"])["n"] for _, fields in entries}

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # the server is down, or still loads its files
            return False


class ReplicatedStorage:
    """A cluster, or Sentinels with their servers. The keys may be spread over `slots` hash tags."""

    def __init__(self, servers: RedisCluster | RedisSentinels, slots: int = 0) -> None:
        self.servers, self._slots = servers, slots
        #: The hash tag of the key that most messages have.
        self.tag = CLUSTER_TAG
        self.use(KEY)

    def use(self, key: str) -> None:
        """Let the faults hit the server that has a key."""
        layout = Layout(self._slots or 1, CLUSTER_TAG)
        self.tag = layout.tags[layout.number(key)]

    @property
    def slot(self) -> int:
        """The slot of the names with the tag."""
        return slot_of(self.tag)

    @property
    def url(self) -> str:
        """The URL of the cluster or of the Sentinels."""
        slots = f"&slots={self._slots}" if self._slots else ""
        return f"{self.servers.url}?socket_timeout={PATIENCE:g}{slots}"

    async def start(self) -> None:
        """Start all servers; return when they have found each other."""
        await asyncio.to_thread(self.servers.__enter__)

    async def stop(self) -> None:
        """Stop all servers."""
        self.servers.__exit__()

    def owner(self) -> RedisServer:
        """Return the server that takes the writes."""
        return (
            self.servers.owner(self.slot)
            if isinstance(self.servers, RedisCluster)
            else self.servers.primary()
        )

    def replicate(self) -> None:
        """Wait until a replica has all that was accepted until now."""
        with redis.Redis.from_url(self.owner().url) as client:
            client.set(f"{{{self.tag}}}chaos", 1)
            if not client.wait(1, round(PATIENCE * 1000)):
                raise RuntimeError("no replica confirms")


Storage = SQLiteStorage | RedisStorage | ReplicatedStorage
