"""What the router under test keeps its messages in, with its switch and its plug."""

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

from abe_router.testing.redis_server import free_port

#: How long a server may take to answer after its start, in seconds.
PATIENCE = 10.0
#: How long a worker waits for an answer before it counts the connection as dead, in seconds.
ANSWER_TIMEOUT = 1.0


class SQLiteStorage:
    """A file in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "messages.db"
        self.url = f"sqlite:///{self.path}"

    async def start(self) -> None:
        """Nothing: whoever comes first makes the file."""

    def is_locked(self, patience: float) -> bool:
        """Say whether somebody keeps the file locked for so many seconds."""
        try:
            with closing(sqlite3.connect(self.path, timeout=patience, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
        return False

    async def stop(self) -> None:
        """Nothing: there is no server."""


class RedisStorage:
    """A server of our own on a free port, that writes every command to disk before it answers.

    `options` are those of redis.conf, on top of that.
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
        #: Whoever has the server down has it up again before somebody else does the same.
        self.down = asyncio.Lock()
        #: A connection to the server that no fault touches.
        self.client = redis.Redis(port=self.port, socket_timeout=PATIENCE)

    @staticmethod
    def installed() -> bool:
        """Say whether there is a `redis-server`."""
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        """The address of the server."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the address of the server as seen through another port of this machine."""
        return f"redis://127.0.0.1:{port}/0?socket_timeout={ANSWER_TIMEOUT:g}"

    async def start(self) -> None:
        """Start the server on what it kept; return when it answers."""
        program = shutil.which("redis-server")
        assert program, "redis-server is not installed"
        arguments = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > until:
                raise RuntimeError(f"redis-server does not answer; see {self._folder / 'redis.log'}")
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End the server without a warning."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Remove what a server that was killed had kept."""
        shutil.rmtree(self._folder / "appendonlydir")

    async def stop(self) -> None:
        """End the server."""
        self.client.close()
        self.kill()

    def ask(self, *command: Any) -> Any:
        """Return the server's answer to a command."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]  # it has no types

    def messages(self, *keys: str) -> dict[str, int]:
        """Return the ids of the messages in the streams of some keys, each with its number."""
        entries: list[Any] = [entry for key in keys for entry in cast("Any", self.client.xrange(key))]
        return {fields[b"id"].decode(): json.loads(fields[b"data"])["n"] for _, fields in entries}

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:  # also while it reads its files
            return False


Storage = SQLiteStorage | RedisStorage
