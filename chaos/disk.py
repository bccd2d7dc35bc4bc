"""A small disk that can be filled."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

#: Its size, in bytes.
SIZE = 24 << 20
_BLOCK = b"\0" * 65536


class Disk:
    """A small file system on `folder`; a context manager. Raises OSError without permission to mount."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._filler = folder, folder / "filler"

    def __enter__(self) -> Self:
        arguments = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self._folder)]
        done = subprocess.run(arguments, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(errno.EPERM, done.stderr.strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A worker that was just killed may still have files open.
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def fill(self) -> None:
        """Fill it, so that no file can grow."""
        with self._filler.open("wb", buffering=0) as filler:
            size = len(_BLOCK)
            while size:
                try:
                    filler.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Free the space again."""
        self._filler.unlink()


def mount_error() -> str:
    """Return why such a disk cannot be mounted here, or an empty string."""
    if os.name != "posix":
        return "it needs a POSIX system"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder)):
                return ""
        except OSError:
            return "it needs permission to mount a file system"
