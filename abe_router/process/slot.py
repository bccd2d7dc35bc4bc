"""Worker slots of the supervisor: each keeps one worker process running."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from abe_router.backoff import Backoff, wait_for_event
from abe_router.diagnostic import Diagnostic
from abe_router.process.channel import (
    STOP,
    Accepted,
    Rejected,
    Running,
    Storing,
    WorkerMessage,
    decode_message,
)
from abe_router.text import format_duration

_log = logging.getLogger("abe_router")

#: Delay before a worker that ended is replaced, in seconds: the first, which doubles, and the longest.
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
#: After a worker that ran longer than this, in seconds, the first delay applies again.
STABLE_AFTER = 60.0
#: How long a worker with new code may take until its routes run, in seconds.
START_TIME = 60.0
#: How long a worker may take to end after its drain time, in seconds. After that it is killed.
END_TIME = 1.0
#: Longest message of a worker, in bytes; it holds the diagnostics of a file in which everything is wrong.
MAX_MESSAGE = 64 * 1024 * 1024

#: Returns the command line of a worker for its number, the file descriptor of its end of the channel, and
#: whether other workers have run before it.
CommandLine = Callable[[int, int, bool], Sequence[str]]


class WorkerProcess:
    """A worker process from its start to its end, as its supervisor sees it.

    It has a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone. The
    supervisor then stops each worker exactly once.
    """

    def __init__(self, number: int, process: Process, channel: asyncio.StreamWriter) -> None:
        self.number, self.pid = number, process.pid
        self._process, self._channel = process, channel
        self._began = self._heard_at = time.monotonic()
        #: When it was started, in seconds since the epoch.
        self.started_at = time.time()
        #: The files that define its handlers, as far as it has reported them.
        self.code: frozenset[Path] = frozenset()
        #: The errors of the routes file that prevented its start.
        self.diagnostics: tuple[Diagnostic, ...] = ()
        #: The revision of the table that it runs, as far as it has reported it.
        self.revision = ""
        #: How many of the reloads that were logged it has made, or found made when it started.
        self.reloads = 0
        #: Whether it has reported that its routes run.
        self.has_run = False
        #: Set once it has reported so, or has ended.
        self.settled = asyncio.Event()
        self._life: asyncio.Task[int] | None = None
        #: The longest drain time of its routes, as far as it has reported it.
        self._drain = 30.0
        self._killing: asyncio.TimerHandle | None = None

    @classmethod
    async def start(
        cls,
        number: int,
        command_line: CommandLine,
        on_message: Callable[[WorkerProcess, WorkerMessage], None],
        *,
        later: bool = False,
    ) -> Self:
        """Start the worker of that number; raise OSError if that fails. `on_message` gets its messages.

        `later` says whether other workers have run before it.
        """
        ours, its = socket.socketpair()
        with its:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command_line(number, its.fileno(), later),
                    pass_fds=[its.fileno()],
                    stdin=DEVNULL,
                    process_group=0,
                )
            except OSError:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_MESSAGE)
        worker = cls(number, process, writer)
        worker._life = asyncio.create_task(worker._live(reader, on_message))
        return worker

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._life is not None and self._life.done()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called. The worker is killed when it takes too long."""
        return self._killing is not None

    @property
    def age(self) -> float:
        """The time since its start, in seconds."""
        return time.monotonic() - self._began

    @property
    def silence(self) -> float:
        """The time since its last message, in seconds. A worker that runs sends one each second."""
        return time.monotonic() - self._heard_at

    async def ended(self) -> int:
        """Wait for its end; return its exit code, or the negative number of the signal that killed it."""
        assert self._life is not None
        return await asyncio.shield(self._life)

    def send(self, command: bytes) -> None:
        """Send it a command."""
        if not self.has_ended:
            self._channel.write(command)

    def stop(self) -> None:
        """Tell it to drain and exit; kill it when it outlives its drain time and a second."""
        self.send(STOP)
        if self._killing is None:
            self._kill_in(self._drain + END_TIME)

    def kill(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def __str__(self) -> str:
        return f"worker {self.number} (pid {self.pid})"

    def _kill_in(self, seconds: float) -> None:
        if self._killing is not None:
            self._killing.cancel()
        self._killing = asyncio.get_running_loop().call_later(seconds, self._kill_late)

    def _kill_late(self) -> None:
        if not self.has_ended and self._process.returncode is None:
            _log.error("%s did not end within its drain time: it is killed", self)
            self.kill()

    async def _live(
        self, reader: asyncio.StreamReader, on_message: Callable[[WorkerProcess, WorkerMessage], None]
    ) -> int:
        reading = asyncio.create_task(self._read(reader, on_message))
        code = await self._process.wait()
        # Its last messages may still be on the way. A child process of the worker may keep the channel open.
        await asyncio.wait({reading}, timeout=1.0)
        reading.cancel()
        self._channel.close()
        if self._killing is not None:
            self._killing.cancel()
        self.settled.set()
        return code

    async def _read(
        self, reader: asyncio.StreamReader, on_message: Callable[[WorkerProcess, WorkerMessage], None]
    ) -> None:
        with suppress(ConnectionError):
            async for line in reader:
                message = decode_message(line)
                self._heard_at = time.monotonic()
                on_message(self, message)
                if isinstance(message, Running):
                    self.code, self._drain, self.has_run = message.code, message.drain, True
                    self.settled.set()
                elif isinstance(message, Accepted):
                    self.revision = message.reloaded.revision
                elif isinstance(message, Storing) and self._killing is not None:
                    self._kill_in(message.seconds + END_TIME)
                elif isinstance(message, Rejected):
                    self.diagnostics = message.diagnostics


class WorkerSlot:
    """Keeps one worker running.

    `start` starts a worker, or raises OSError. With `once`, a worker that ends by itself because all is done
    is not replaced. After `stopping` is set, no worker is replaced.
    """

    def __init__(
        self, start: Callable[[], Awaitable[WorkerProcess]], stopping: asyncio.Event, *, once: bool = False
    ) -> None:
        self._start, self._stopping, self._once = start, stopping, once
        self._lock = asyncio.Lock()
        self._backoff = Backoff(FIRST_DELAY, LONGEST_DELAY, jitter=False)
        self._worker: WorkerProcess | None = None
        self._code: frozenset[Path] = frozenset()
        #: How many workers have ended by themselves and were replaced.
        self.restarts = 0

    @property
    def silence(self) -> float:
        """The time since the last message of its worker, in seconds; 0 while none runs."""
        return self._worker.silence if self._worker is not None and self.is_up else 0.0

    @property
    def is_up(self) -> bool:
        """Whether its worker runs its routes."""
        return self._worker is not None and self._worker.has_run and not self._worker.has_ended

    @property
    def code(self) -> frozenset[Path]:
        """The files that define the handlers of its worker, or of the last one that ran."""
        if self._worker is not None and self._worker.has_run:
            self._code = self._worker.code
        return self._code

    async def fill(self) -> WorkerProcess | None:
        """Start a worker if none runs; return the running one, or None if stopped before one could start."""
        async with self._lock:
            while self._worker is None or (self._worker.has_ended and not self._stopping.is_set()):
                try:
                    self._worker = await self._start()
                except OSError as error:
                    delay = self._backoff.next()
                    _log.error("cannot start a worker, next try in %s: %s", format_duration(delay), error)
                    await wait_for_event(self._stopping, delay)
                    if self._stopping.is_set():
                        return self._worker
            return self._worker

    async def keep(self) -> int:
        """Start another worker whenever one has ended, until stopped.

        Return the exit code of the last worker, 0 if none ran when the slot was stopped.
        """
        while True:
            worker = await self.fill()
            if worker is None:
                return 0
            code = await worker.ended()
            if self._worker is not worker:  # one with new code has replaced it
                continue
            if self._stopping.is_set() or (self._once and code in (0, 1)):
                return code
            if worker.age > STABLE_AFTER:
                self._backoff.reset()
            self.restarts += 1
            delay = self._backoff.next()
            level = logging.INFO if code == 0 else logging.ERROR
            _log.log(
                level, "%s %s, another starts in %s", worker, describe_exit(code), format_duration(delay)
            )
            await wait_for_event(self._stopping, delay)
            if self._stopping.is_set() and self._worker is worker:
                return 0

    async def replace(self) -> bool:
        """Start a worker with new code, then stop the old one; return whether that succeeded.

        If the new worker does not get its routes running, it is ended and the old one stays.
        """
        async with self._lock:
            try:
                old, new = self._worker, await self._start()
            except OSError as error:
                _log.error("cannot start a worker with the new code: %s", error)
                return False
            await wait_for_event(new.settled, START_TIME)
            if not new.has_run:
                new.kill()
                code = await new.ended()
                if not self._stopping.is_set():
                    _log.error("%s, with the new code, %s before its routes ran", new, describe_exit(code))
                return False
            self._worker = new
            self._backoff.reset()
        if old is not None:
            old.stop()
            await old.ended()
        return True


def describe_exit(code: int) -> str:
    """Describe how a process ended, from its exit code."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
