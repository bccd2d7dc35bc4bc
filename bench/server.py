"""The Redis server of the benchmark, without persistence."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from abe_router.testing.redis_server import server_program
from bench.process import die_with_parent


class Server:
    """A redis-server on a unix socket in `folder`; a context manager.

    Persistence is off: the benchmark compares clients, and a disk adds noise.
    """

    def __init__(self, folder: Path) -> None:
        program = server_program()
        if program is None:
            raise SystemExit("redis-server is not installed; the benchmark needs it")
        self._program, self._folder = program, folder
        self.socket = folder / "redis.sock"
        self.client = redis.Redis(unix_socket_path=str(self.socket))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                self._program,
                *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self._folder)),
                *("--save", "", "--appendonly", "no", "--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        for _ in range(500):
            try:
                self.client.ping()
            except redis.ConnectionError:
                time.sleep(0.01)
            else:
                self.version = str(self.client.info("server")["redis_version"])
                return self
        raise SystemExit("redis-server does not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.terminate()
        self._process.wait()

    @property
    def url(self) -> str:
        """The URL for redis-py and for libraries that use it."""
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def clear(self) -> None:
        """Delete all data and scripts."""
        self.client.flushall()
        self.client.script_flush()

    def connections(self) -> int:
        """Return the number of connected clients, without this one."""
        return int(self.client.info("clients")["connected_clients"]) - 1

    def memory(self) -> int:
        """Return the memory in use, in bytes."""
        return int(self.client.info("memory")["used_memory"])
