"""A process under test: started, stopped, paused and killed, with its output in a file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: The folder in which everything is run, so that `chaos` and `abe_router` are found.
ROOT = Path(__file__).resolve().parent.parent
#: How long a process may take to end when it is asked to, in seconds.
PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1


class Process:
    """A program with everything that is done to it; what it says goes to `log`."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._argv, self._environment = argv, environment
        self.log = log
        #: When it was killed, stopped and found to have ended, in seconds since the epoch; 0 for not yet.
        self.killed_at = self.ended_at = 0.0
        #: Whether its end is somebody's will, and its exit code once it has ended, below zero for a signal.
        self.is_awaited, self.code = False, 0
        #: Whether it stands still.
        self.is_frozen = False

    async def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    **self._environment,
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end; return its exit code."""
        self.code = await self._process.wait()
        self.ended_at = self.ended_at or time.time()
        return self.code

    def kill(self) -> None:
        """End it without a warning."""
        self.is_awaited, self.killed_at = True, time.time()
        self.signal(signal.SIGKILL)

    async def terminate(self) -> tuple[int, float]:
        """Ask it to end, and wait until it has; return its exit code and how many seconds it took.

        One that does not end in time is killed.
        """
        self.is_awaited = True
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.wait()
        except TimeoutError:
            self.kill()
        return await self.wait(), time.monotonic() - began

    def freeze(self) -> None:
        """Stop it where it is."""
        self.is_frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.is_frozen = False
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self) -> None:
        """Kill it and wait until it is gone."""
        self.kill()
        await self.wait()


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: a killed harness leaves nothing behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
