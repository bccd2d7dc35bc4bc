"""The control channel between a worker process and its supervisor: messages go up, commands come down.

It is one socket. When the supervisor ends, for whatever reason, the socket closes and the worker stops. Both
ends run the same version of the code, since the supervisor starts its workers from its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from abe_router.diagnostic import Diagnostic
from abe_router.observe.events import ConfigWarning, Event, Reloaded, Reloading, ReloadRejected, RestartNeeded
from abe_router.observe.tally import ProcessCounts, RouteCounts

#: The commands: drain and exit, and exit at once.
STOP, FORCE = b"stop\n", b"force\n"
#: Events that the supervisor logs once for all of its workers.
FORWARDED = (Reloaded, ReloadRejected, RestartNeeded, ConfigWarning)


class Running(msgspec.Struct, frozen=True, tag=True):
    """All routes have started; `code` is the set of files that define their handlers.

    `drain` is the longest drain time of the routes, in seconds.
    """

    code: frozenset[Path]
    drain: float = 30.0


class Storing(msgspec.Struct, frozen=True, tag=True):
    """The drain time is over, and the worker still stores outcomes, for `seconds` at most."""

    seconds: float


class Alive(msgspec.Struct, frozen=True, tag=True):
    """The event loop of the worker runs."""


class Applying(msgspec.Struct, frozen=True, tag=True):
    """An edit of the routes file is put into force; `Accepted` follows."""


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The current content of the routes file is in force, as a table."""

    reloaded: Reloaded


class Warned(msgspec.Struct, frozen=True, tag=True):
    """The current content of the routes file has a warning."""

    warning: ConfigWarning


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The current content of the routes file has errors."""

    diagnostics: tuple[Diagnostic, ...]


class Outdated(msgspec.Struct, frozen=True, tag=True):
    """A change of `path` takes effect only after a restart."""

    what: str
    path: Path


class Counts(msgspec.Struct, frozen=True, tag=True):
    """What routes have done so far in the worker, by name; a message may have a part of the routes.

    `names` has all routes of the worker, those that are draining too; None if they are as reported before.
    With `more`, the next message has further ones.
    """

    routes: Mapping[str, RouteCounts]
    process: ProcessCounts = ProcessCounts()
    names: tuple[str, ...] | None = None
    more: bool = False


WorkerMessage = Running | Alive | Storing | Applying | Accepted | Rejected | Warned | Outdated | Counts
_COUNTS = b'{"type":"Counts"'
_decode_counts = msgspec.json.Decoder(Counts).decode


def encode_message(message: WorkerMessage) -> bytes:
    """Return a message as one line of JSON. Names of files need not be UTF-8; counts name none."""
    if isinstance(message, Counts):
        return msgspec.json.encode(message) + b"\n"
    return json.dumps(msgspec.to_builtins(message, enc_hook=str)).encode() + b"\n"


def decode_message(line: bytes) -> WorkerMessage:
    """Return the message of a line, with the exact names of files."""
    if line.startswith(_COUNTS):  # they come often, and are long
        return _decode_counts(line)
    message: WorkerMessage = msgspec.convert(
        json.loads(line), WorkerMessage, dec_hook=lambda kind, value: kind(value)
    )
    return message


class ControlChannel:
    """The worker's end of the channel; `fd` is the socket that the supervisor left open for worker `number`.

    A thread reads commands, because a handler may block the event loop. The end of the supervisor is a
    command to stop. Before `on_command` was called, nothing runs that could be drained, so that any command
    ends the process at once.
    """

    def __init__(self, number: int, fd: int) -> None:
        #: The worker's number under its supervisor, from 1.
        self.number = number
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._read, name="control-channel", daemon=True).start()

    def on_command(self, stop: Callable[[bool], None], *, begin: Callable[[], None]) -> None:
        """From now on, call `stop` in the running event loop for each command; True means at once.

        `begin` is called before that, in the thread, although the event loop may be blocked.
        """
        with self._lock:
            self._loop, self._stop, self._begin = asyncio.get_running_loop(), stop, begin

    def send(self, message: WorkerMessage) -> None:
        """Send a message to the supervisor, if it still runs. `Alive` is dropped rather than waited for."""
        flags = socket.MSG_DONTWAIT if isinstance(message, Alive) else 0
        with suppress(OSError):
            self._socket.sendall(encode_message(message), flags)

    @property
    def has_room(self) -> bool:
        """Whether a message of some 10,000 bytes can be sent without waiting for the supervisor."""
        writable = select.poll()
        writable.register(self._socket, select.POLLOUT)
        return bool(writable.poll(0))

    def forward(self, event: Event) -> None:
        """Send the message about an event that concerns the routes file."""
        match event:
            case Reloading():
                self.send(Applying())
            case Reloaded():
                self.send(Accepted(event))
            case ConfigWarning():
                self.send(Warned(event))
            case ReloadRejected():
                self.send(Rejected(event.diagnostics))
            case RestartNeeded():
                self.send(Outdated(event.what, event.path))

    def _read(self) -> None:
        with suppress(OSError), self._socket.makefile("rb") as commands:
            for command in commands:
                self._carry_out(at_once=command == FORCE)
        # The supervisor has ended.
        self._carry_out(at_once=False)

    def _carry_out(self, *, at_once: bool) -> None:
        with self._lock:
            if self._loop is None:
                os._exit(0)
            self._begin()
            with suppress(RuntimeError):  # the loop is closed, since the process is about to end
                self._loop.call_soon_threadsafe(self._stop, at_once)
