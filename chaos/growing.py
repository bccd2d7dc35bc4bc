"""A file to which other processes append lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class GrowingFile(Generic[T]):
    """What the lines of a file say so far. Each line is read once; `parse` returns None for one to leave out.

    Threads may share it.
    """

    def __init__(self, path: Path, parse: Callable[[str], T | None]) -> None:
        self._path, self._parse = path, parse
        self._items: list[T] = []
        self._read = 0
        self._lock = threading.Lock()

    def items(self) -> Sequence[T]:
        """Return what all lines say that are complete; nothing while there is no file."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    new = file.read()
            except FileNotFoundError:
                return []
            complete = new[: new.rfind(b"\n") + 1]
            self._read += len(complete)
            for line in complete.decode(errors="replace").splitlines():
                if (item := self._parse(line)) is not None:
                    self._items.append(item)
            return self._items[:]
