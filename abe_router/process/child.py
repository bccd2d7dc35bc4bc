"""One worker process, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from abe_router.diagnostic import Diagnostic
from abe_router.process.channel import Rejected, Running, Word, decode_word

#: Longest word of a worker, in bytes: room for the faults of a file in which everything is wrong.
MAX_WORD = 64 * 1024 * 1024
#: Makes the command line of the worker of a number, whose end of the line is a file descriptor.
Command = Callable[[int, int], Sequence[str]]


class Child:
    """A worker process from its start to its end.

    It is in a process group of its own: Ctrl-C in a terminal comes to the supervisor alone, which sees to
    it that everyone hears of it once.
    """

    def __init__(self, number: int, process: Process, line: asyncio.StreamWriter) -> None:
        self.number, self.pid = number, process.pid
        self._process, self._line = process, line
        self._began = time.monotonic()
        #: When it was started, in seconds since the epoch.
        self.started_at = time.time()
        #: The files that its handlers are made of, as far as it has told.
        self.code: frozenset[Path] = frozenset()
        #: The faults for which it could not start.
        self.faults: tuple[Diagnostic, ...] = ()
        #: Whether it has said that its routes run.
        self.has_run = False
        #: Set once it has said so, or has ended.
        self.settled = asyncio.Event()
        self._life: asyncio.Task[int] | None = None

    @classmethod
    async def start(cls, number: int, command: Command, ear: Callable[[Child, Word], None]) -> Self:
        """Start the worker of that number, whose words come to `ear`; raise OSError when that fails."""
        ours, its = socket.socketpair()
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command(number, its.fileno()), pass_fds=[its.fileno()], stdin=DEVNULL, process_group=0
                )
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_WORD)
        child = cls(number, process, writer)
        child._life = asyncio.create_task(child._live(reader, ear))
        return child

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._life is not None and self._life.done()

    @property
    def age(self) -> float:
        """How long ago it was started, in seconds."""
        return time.monotonic() - self._began

    async def ended(self) -> int:
        """Wait for its end; return its exit code, which of a signal is the number below zero."""
        assert self._life is not None
        return await asyncio.shield(self._life)

    def order(self, order: bytes) -> None:
        """Send an order down the line."""
        if not self.is_over:
            self._line.write(order)

    def kill(self) -> None:
        """End it without warning."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    async def _live(self, reader: asyncio.StreamReader, ear: Callable[[Child, Word], None]) -> int:
        hearing = asyncio.create_task(self._hear(reader, ear))
        code = await self._process.wait()
        # What it said last may still be on the way; a process that it left behind may hold the line open.
        await asyncio.wait({hearing}, timeout=1.0)
        hearing.cancel()
        self._line.close()
        self.settled.set()
        return code

    async def _hear(self, reader: asyncio.StreamReader, ear: Callable[[Child, Word], None]) -> None:
        with suppress(ConnectionError):
            async for line in reader:
                word: Word = decode_word(line)
                ear(self, word)
                if isinstance(word, Running):
                    self.code, self.has_run = word.code, True
                    self.settled.set()
                elif isinstance(word, Rejected):
                    self.faults = word.diagnostics


def reason(code: int) -> str:
    """Say how a process ended, by its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
