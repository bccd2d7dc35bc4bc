"""A process under test, which can be started, stopped, frozen and killed; its output goes to a file.

It is a fork of a process that has imported the program: imports would take most of the processor time of a
row, and processor time limits how many rows run at the same time.
"""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: The working folder of all processes, so that they can import `chaos` and `abe_router`.
ROOT = Path(__file__).resolve().parent.parent
#: Longest time that a process may take to exit after SIGTERM, in seconds.
PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1

#: Forks from a process with all imports done. A module that does not exist is ignored, which is only slower.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "abe_router.application",
        "abe_router.backends.redis",
        "abe_router.backends.sqlite",
        "abe_router.cli.dead",
        "abe_router.cli.root",
        "abe_router.cli.serve",
        "abe_router.cli.status",
        "anyio._backends._asyncio",
        "chaos.handler",
        "chaos.ledger",
        "chaos.plan",
        "uvloop",
    ]
)


class Process:
    """A program that the harness controls; its output goes to `log`.

    `argv` is `-m MODULE` or the path of a program, with the arguments.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._argv, self._environment = argv, environment
        self.log = log
        #: When it was killed, and when it was found to have ended, in seconds since the epoch; 0 before that.
        self.killed_at = self.ended_at = 0.0
        #: Whether the harness ended it; its exit code after its end, negative for a signal.
        self.is_awaited, self.code = False, 0
        #: Whether it is stopped by SIGSTOP.
        self.is_frozen = False

    async def start(self) -> None:
        """Start the process."""
        self.log.touch()
        environment = {"PYTHONPATH": str(ROOT), **self._environment}
        self._process = FORKED.Process(
            target=_run, args=(list(self._argv), environment, str(self.log)), daemon=True
        )
        self._process.start()
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._process.sentinel, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._ended.set()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    async def wait(self) -> int:
        """Wait until it ends; return its exit code."""
        await self._ended.wait()
        self.code = self._process.exitcode or 0
        self.ended_at = self.ended_at or time.time()
        return self.code

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.is_awaited, self.killed_at = True, time.time()
        self.signal(signal.SIGKILL)

    async def terminate(self) -> tuple[int, float, float]:
        """Send SIGTERM and wait until it ends; return its exit code, and when it got the signal and ended.

        A process that does not end in time is killed.
        """
        self.is_awaited = True
        began = time.time()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.wait()
        except TimeoutError:
            self.kill()
        return await self.wait(), began, self.ended_at

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        self.is_frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it with SIGCONT."""
        self.is_frozen = False
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self) -> None:
        """Kill it and wait until it has ended."""
        self.kill()
        await self.wait()


def _run(argv: list[str], environment: Mapping[str, str], log: str) -> None:
    """Run a program in the forked process, as the interpreter would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # when its parent dies
    os.chdir(ROOT)
    os.environ.update(environment)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream, fd in enumerate((os.open(os.devnull, os.O_RDONLY), out, out)):
        os.dup2(fd, stream)
    sys.path.insert(0, str(ROOT))
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")
