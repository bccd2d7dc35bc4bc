"""A process under test, which can be started, stopped, frozen and killed; its output goes to a file."""

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

#: The working folder of all processes, so that they can import `chaos` and `abe_router`.
ROOT = Path(__file__).resolve().parent.parent
#: Longest time that a process may take to exit after SIGTERM, in seconds.
PATIENCE = 20.0
_PR_SET_PDEATHSIG = 1


class Process:
    """A program that the harness controls; its output goes to `log`."""

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
        with self.log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self._environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait until it ends; return its exit code."""
        self.code = await self._process.wait()
        self.ended_at = self.ended_at or time.time()
        return self.code

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.is_awaited, self.killed_at = True, time.time()
        self.signal(signal.SIGKILL)

    async def terminate(self) -> tuple[int, float]:
        """Send SIGTERM and wait until it ends; return its exit code and how many seconds it took.

        A process that does not end in time is killed.
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
        """Stop it with SIGSTOP."""
        self.is_frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it with SIGCONT."""
        self.is_frozen = False
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self) -> None:
        """Kill it and wait until it has ended."""
        self.kill()
        await self.wait()


def _die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
