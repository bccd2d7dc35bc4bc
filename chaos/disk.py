"""A disk that fills up."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

#: How much fits on it, in bytes.
SIZE = 24 << 20
_BLOCK = b"\0" * 65536


class Disk:
    """A small file system on `folder`; a context manager. Raise OSError where nothing can be mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ballast = folder, folder / "ballast"

    def __enter__(self) -> Self:
        words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._folder)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(errno.EPERM, done.stderr.strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily: a worker that was killed a moment ago may not have let go of its files yet.
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def fill(self) -> None:
        """Let nobody write anything more to it, but where something was written before."""
        with self._ballast.open("wb", buffering=0) as ballast:
            size = len(_BLOCK)
            while size:
                try:
                    ballast.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Let everybody write again."""
        self._ballast.unlink()


def unmountable() -> str:
    """Return why there can be no such disk here, nothing if there can."""
    if os.name != "posix":
        return "it takes a POSIX system"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder)):
                return ""
        except OSError:
            return "it takes the right to mount a file system"
