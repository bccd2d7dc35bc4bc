"""A file that is read once, so that the same bytes are hashed, checked and parsed."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

#: Largest file that is read, in bytes; routes files and schemas are far smaller.
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a file when it was read; `mode` is its permission bits."""

    path: Path
    data: bytes = field(repr=False)
    digest: str
    mode: int = 0o600

    @classmethod
    def read(cls, path: Path, *, partly: bool = False) -> Self:
        """Read a regular file of at most 1 MiB, or with `partly` the first MiB of a larger one.

        Raise OSError if it cannot be opened, ValueError if it is not a regular file or is larger.
        """
        # Without O_NONBLOCK, opening a pipe waits until another process opens it for writing.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise ValueError("it is a folder, not a file")
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("it is not a regular file")
            data = file.read(MAX_BYTES + 1)
        if partly:
            data = data[:MAX_BYTES]
        elif len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
        return cls(path, data, hashlib.sha256(data).hexdigest(), stat.S_IMODE(status.st_mode))
