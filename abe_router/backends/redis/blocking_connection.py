"""A connection for threads, which runs scripts without an event loop.

Leases are renewed through it while the event loop is blocked: the loop then reads no answers from its own
connections. It connects when it is first used, and again after it was idle or an error broke it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import hiredis

from abe_router.backends.redis.address import Address
from abe_router.backends.redis.credentials import Credentials
from abe_router.backends.redis.finder import Finder
from abe_router.backends.redis.protocol import Arg, ServerNotReady, server_error
from abe_router.backends.redis.scripts import Script
from abe_router.errors import BackendError, BackendUnavailable

#: A connection that was idle for longer is not used again, in seconds: the server may have forgotten it.
_LONGEST_IDLE = 5.0
_INCOMPLETE = object()


class ScriptCall(NamedTuple):
    """A script with its keys and arguments."""

    script: Script
    keys: Sequence[Arg]
    args: Sequence[Arg]


class BlockingConnection:
    """Runs scripts, one batch at a time; any thread may call it."""

    def __init__(self, address: Address, credentials: Credentials, finder: Finder) -> None:
        self._address, self._credentials, self._finder = address, credentials, finder
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=_INCOMPLETE)
        self._used_at = 0.0
        self._closed = False

    def run(self, calls: Sequence[ScriptCall], timeout: float) -> None:
        """Run the scripts and wait for the answers, for each part of one at most `timeout` seconds.

        Raise BackendUnavailable when the server cannot be reached, and BackendError when it refuses one.
        """
        commands = [("EVAL", call.script.text, len(call.keys), *call.keys, *call.args) for call in calls]
        with self._lock:
            try:
                if self._socket is not None and time.monotonic() - self._used_at > _LONGEST_IDLE:
                    self._disconnect()
                if self._socket is None:
                    self._connect(timeout)
                answers = self._send(commands)
                self._used_at = time.monotonic()
            except BaseException as error:
                self._disconnect()
                if isinstance(error, OSError | EOFError | hiredis.ProtocolError):
                    raise BackendUnavailable(
                        f"Redis at {self._address.public} cannot be reached in a thread: {error}"
                    ) from error
                raise
        for answer in answers:
            if isinstance(answer, ServerNotReady):  # another server may have the data by now
                self.reset()
            if isinstance(answer, BackendError):
                raise answer

    def reset(self) -> None:
        """Disconnect unless another thread uses the connection; the next call connects."""
        if self._lock.acquire(blocking=False):
            self._disconnect()
            self._lock.release()

    def close(self) -> None:
        """Disconnect for good, without waiting for a thread that uses it."""
        self._closed = True
        connection = self._socket
        if self._lock.acquire(blocking=False):
            self._disconnect()
            self._lock.release()
        elif connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _connect(self, timeout: float) -> None:
        if self._closed:
            raise BackendUnavailable("the backend is closed")
        address = self._address
        seconds = min(timeout, address.connect_timeout)
        credentials = self._credentials.get_blocking()
        place = asyncio.run(self._finder.find(credentials)) if self._finder.follows else address.place
        if place.path:
            plain = socket.socket(socket.AF_UNIX)
            self._socket = plain
            plain.settimeout(seconds)
            plain.connect(place.path)
        else:
            plain = self._socket = socket.create_connection((place.host, place.port), seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                context: ssl.SSLContext = address.tls.context()
                self._socket = context.wrap_socket(plain, server_hostname=place.host)
        self._socket.settimeout(min(timeout, address.answer_timeout))
        self._reader = hiredis.Reader(replyError=server_error, notEnoughData=_INCOMPLETE)
        greeting: list[tuple[Arg, ...]] = [("AUTH", *credentials)] if credentials else []
        answers = self._send([*greeting, ("SELECT", address.database)])
        for answer in answers:
            if isinstance(answer, BackendError):
                raise answer

    def _send(self, commands: Sequence[tuple[Arg, ...]]) -> list[Any]:
        """Send commands in one write; return their answers, errors of the server among them."""
        assert self._socket is not None
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # as in protocol
        self._socket.sendall(b"".join(packed))
        answers: list[Any] = []
        while len(answers) < len(commands):
            while (answer := self._reader.gets()) is _INCOMPLETE:
                data = self._socket.recv(65536)
                if not data:
                    raise EOFError("the connection was closed by the server")
                self._reader.feed(data)
            answers.append(answer)
        return answers

    def _disconnect(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with suppress(OSError):
                connection.close()
