"""A process with its children: its cost and its end."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

#: The working folder of all processes, so that they can import `bench` and `abe_router`.
ROOT = Path(__file__).resolve().parent.parent
#: Longest time that a process may take to exit after SIGTERM, in seconds.
PATIENCE = 5.0
#: Longest time that a process may take to end by itself, in seconds. A slow peer fills a queue for minutes.
LONGEST = 600.0
_PR_SET_PDEATHSIG = 1


class Process:
    """A program and its children, in a session of their own; a context manager.

    Its output goes to `log`, which shows why a run failed.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.began = time.monotonic()
        self._argv, self._log = list(argv), log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def wait(self) -> None:
        """Wait until it ends by itself; raise RuntimeError if it failed, or takes longer than LONGEST."""
        # `Popen.wait` with a timeout looks every 50 ms, which is longer than a command takes.
        descriptor = os.pidfd_open(self._popen.pid)
        try:
            ended, _, _ = select.select([descriptor], [], [], LONGEST)
        finally:
            os.close(descriptor)
        if not ended:
            raise RuntimeError(f"{' '.join(self._argv)} did not end within {LONGEST:g} s")
        if self._popen.wait():
            self.check()

    def end(self) -> None:
        """Stop it and its children, with SIGKILL if necessary."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(PATIENCE)
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def check(self) -> None:
        """Raise RuntimeError, with the end of its output, if it has ended."""
        if self._popen.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
            raise RuntimeError(f"{' '.join(self._argv)} ended with {self._popen.returncode}:\n{tail}")

    def cpu(self) -> float:
        """Return the processor time used so far, in seconds."""
        return sum(map(cpu_of, self._pids()))

    def peak_memory(self) -> int:
        """Return the peak of resident memory, in bytes; shared pages count once for each process."""
        return sum(_status(pid, "VmHWM") for pid in self._pids()) * 1024

    def _pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if os.getsid(int(entry.name)) == self._popen.pid:
                        found.append(int(entry.name))
                except ProcessLookupError:
                    continue
        return found

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent dies, so that a killed benchmark leaves none."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def cpu_of(pid: int) -> float:
    """Return the processor time that a process has used, in seconds; 0 if it does not exist."""
    # Linux derives the clock id from the pid, as in clock_getcpuclockid(3), which Python does not offer.
    # This clock has nanoseconds. /proc has hundredths of a second, which is too coarse for a drain.
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)
