"""The line between a worker and its supervisor: words go up it, orders come down.

It is one socket. The end of the supervisor, however it comes, closes it: then the worker stops too. Both
ends are of one version, for the supervisor starts its workers from the code it runs on.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from abe_router.diagnostic import Diagnostic
from abe_router.observe.events import Event, Reloaded, ReloadRejected, RestartNeeded

#: Orders: to finish what is in hand and exit, and to exit at once.
STOP, FORCE = b"stop\n", b"force\n"
#: What a worker leaves to its supervisor to log, for all workers have the same to say of it.
PASSED_UP = (ReloadRejected, RestartNeeded)
#: How long a worker whose supervisor is gone may take to notice, in seconds: longer means that it is stuck.
PATIENCE = 60.0


class Running(msgspec.Struct, frozen=True, tag=True):
    """All routes have started; `code` are the files that their handlers are made of."""

    code: frozenset[Path]


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The routes file as it is now is in force."""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The routes file as it is now has faults."""

    diagnostics: tuple[Diagnostic, ...]


class Outdated(msgspec.Struct, frozen=True, tag=True):
    """A change at `path` takes a restart to come into force."""

    what: str
    path: Path


Word = Running | Accepted | Rejected | Outdated


def encode_word(word: Word) -> bytes:
    """Return a word as one line of ASCII, whatever is in it: names of files need not be UTF-8."""
    return json.dumps(msgspec.to_builtins(word, enc_hook=str)).encode() + b"\n"


def decode_word(line: bytes) -> Word:
    """Return the word that a line says, with every name as it was."""
    word: Word = msgspec.convert(json.loads(line), Word, dec_hook=lambda kind, value: kind(value))
    return word


class Lifeline:
    """The end of worker `number`; `fd` is the socket that the supervisor left open for it.

    A thread listens, for an event loop that a handler blocks hears nothing: a worker that has not noticed
    within `patience` seconds that its supervisor is gone is ended. As long as nobody obeys, any order ends
    the process, for nothing has begun.
    """

    def __init__(self, number: int, fd: int, *, patience: float = PATIENCE) -> None:
        #: Which of the supervisor's workers this is, from 1.
        self.number = number
        self._patience = patience
        os.set_inheritable(fd, False)
        self._line = socket.socket(fileno=fd)
        self._lock, self._obeyed = threading.Lock(), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        threading.Thread(target=self._listen, name="lifeline", daemon=True).start()

    def obey(self, stop: Callable[[bool], None]) -> None:
        """From now on have orders carried out by `stop`, in the running event loop; True means at once."""
        with self._lock:
            self._loop, self._stop = asyncio.get_running_loop(), stop

    def say(self, word: Word) -> None:
        """Send a word up; nobody may be there to hear it."""
        with suppress(OSError):
            self._line.sendall(encode_word(word))

    def reject(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        """Send up the faults of the file."""
        self.say(Rejected(diagnostics))

    def hear(self, event: Event) -> None:
        """Send up what concerns the file."""
        match event:
            case Reloaded():
                self.say(Accepted())
            case ReloadRejected():
                self.reject(event.diagnostics)
            case RestartNeeded():
                self.say(Outdated(event.what, event.path))

    def _listen(self) -> None:
        with suppress(OSError), self._line.makefile("rb") as orders:
            for order in orders:
                self._order(at_once=order == FORCE)
        # The supervisor is gone.
        self._order(at_once=False)
        if not self._obeyed.wait(self._patience):
            os._exit(1)

    def _order(self, *, at_once: bool) -> None:
        with self._lock:
            if self._loop is None:
                os._exit(0)
            with suppress(RuntimeError):  # the loop has ended, and the process is about to
                self._loop.call_soon_threadsafe(self._obey, at_once)

    def _obey(self, at_once: bool) -> None:
        self._obeyed.set()
        self._stop(at_once)
