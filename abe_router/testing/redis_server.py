"""A throw-away Redis, for tests against the real thing."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

#: How long a server may take to answer, in seconds.
PATIENCE = 10.0
#: Ports that operating systems give to no outgoing connection, nor to a server that asks for any port.
PORTS = range(15_000, 32_000)


def free_port() -> int:
    """Return a free port that stays free while a killed server is down, though many tests run at a time."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RedisServer:
    """Runs `redis-server` on a free port of this machine while entered.

    `folder` is where it puts its log and, when it is `durable`, the append-only file by which a server that
    is started again has what the one before held. `options` are further words of its command line. Raise
    FileNotFoundError when no server is installed, RuntimeError when it does not answer in ten seconds.
    """

    def __init__(self, folder: Path, *, durable: bool = False, options: Sequence[str] = ()) -> None:
        self._folder, self._durable, self._options = folder, durable, options
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        #: Its address, as `REDIS_URL` takes it.
        self.url = f"redis://127.0.0.1:{self._port}/0"

    @staticmethod
    def installed() -> bool:
        """Say whether there is a `redis-server` on the path."""
        return shutil.which("redis-server") is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server, again on the same port, and return when it answers."""
        program = shutil.which("redis-server")
        if program is None:
            raise FileNotFoundError("redis-server is not installed")
        options = {
            "port": self._port,
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "yes" if self._durable else "no",
            # With `everysec` a write waits for the sync before it, up to 2 s, and a kill takes it along.
            "appendfsync": "always",
            "dir": self._folder,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self._process = subprocess.Popen(  # noqa: S603
            [program, *arguments, "--logfile", "redis.log", *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        patience = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > patience or self._process.poll() is not None:
                self.kill()
                raise RuntimeError(f"redis-server does not answer; see {self._folder / 'redis.log'}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def empty(self) -> None:
        """Delete everything that the server holds."""
        self._ask(b"FLUSHALL")

    def _answers(self) -> bool:
        try:
            return self._ask(b"PING") == b"+PONG\r\n"
        except OSError:
            return False

    def _ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(64)
