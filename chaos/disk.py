"""A disk that fills up."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

#: How much fits on it, and how large a file may get where nothing can be mounted, in bytes.
SIZE, LARGEST_FILE = 24 << 20, 1 << 20
_BLOCK = b"\0" * 65536


class Disk:
    """A small file system on `folder`; a context manager.

    Mounting takes root. Others get the next best thing: the kernel refuses to let files grow.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ballast = folder, folder / "ballast"
        self._mounted = False

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._folder)]
            self._mounted = subprocess.run(words, check=False, capture_output=True).returncode == 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._mounted:
            # Lazily: a worker that was killed a moment ago may not have let go of its files yet.
            subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def fill(self, pids: Iterable[int]) -> None:
        """Let the processes write nothing more to it, but where they have written before."""
        if not self._mounted:
            self._limit(pids, LARGEST_FILE)
            return
        with self._ballast.open("wb", buffering=0) as ballast:
            size = len(_BLOCK)
            while size:
                try:
                    ballast.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self, pids: Iterable[int]) -> None:
        """Let them write again."""
        if self._mounted:
            self._ballast.unlink()
        else:
            self._limit(pids, resource.RLIM_INFINITY)

    def _limit(self, pids: Iterable[int], size: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
