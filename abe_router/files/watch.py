"""Watches files for changes, whichever way they are saved.

Directories are watched, not files: an atomic save replaces the file, and a ConfigMap update replaces a
symlink, which ends a watch on the file itself. A sign of a change is only a reason to compare fingerprints.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

from watchfiles import awatch

from abe_router.backoff import Backoff, wait_for_event

_log = logging.getLogger(__name__)
# watchfiles logs each change of a watched folder at INFO, and a database in it changes all the time. A level
# that the program has chosen stays.
if not logging.getLogger("watchfiles").level:
    logging.getLogger("watchfiles").setLevel(logging.WARNING)

#: Quiet time after a change before it is reported, and the interval of collecting changes, in milliseconds.
DEBOUNCE, STEP = 100, 20
#: Interval of the checks without a sign of a change, in milliseconds: for filesystems that give no signs, and
#: for changes made while the right folders were not watched.
POLL = 500
#: Longest delay between two attempts to watch folders after an error, in seconds; meanwhile they are polled.
LONGEST_DELAY = 30.0

#: The state of files by path: inode, size and modification time, or None if the file does not exist.
Fingerprint = dict[Path, tuple[int, int, int] | None]


class Watch:
    """Gives signs that files may have changed; `files` returns the current set of files."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._stopping = asyncio.Event()
        #: Whether the folders are watched, and not only polled.
        self.watching = False

    def stop(self) -> None:
        """End `signs`. Idempotent."""
        self._stopping.set()

    async def signs(self) -> AsyncIterator[bool]:
        """Yield True after a change in a folder, and False periodically; compare fingerprints after both."""
        yielded_at, logged = -math.inf, ""
        backoff = Backoff(POLL / 1000, LONGEST_DELAY, jitter=False)
        while not self._stopping.is_set():
            files = set(self._files())
            folders = _folders(files)
            try:
                async for changes in awatch(
                    *sorted(folders),
                    watch_filter=None,
                    debounce=DEBOUNCE,
                    step=STEP,
                    stop_event=self._stopping,
                    rust_timeout=POLL,
                    yield_on_timeout=True,
                    recursive=False,
                    ignore_permission_denied=True,
                ):
                    self.watching = True
                    backoff.reset()
                    changed = any(_is_of_interest(path) for _, path in changes)
                    # A busy database in the folder causes endless signs, so quiet time never comes.
                    if not changed and time.monotonic() < yielded_at + POLL / 1000:
                        continue
                    yielded_at = time.monotonic()
                    yield changed
                    now = set(self._files())
                    if (changed or now != files) and _folders(now) != folders:
                        break
                    files = now
                continue
            # Too many watches, a deleted folder, a name that is not UTF-8: the files are still polled.
            except Exception as error:  # noqa: BLE001
                self.watching = False
                if (text := str(error)) != logged:
                    _log.warning("cannot watch the files, they are polled instead: %s", text)
                    logged = text
            until = time.monotonic() + backoff.next()
            while time.monotonic() < until and not self._stopping.is_set():
                await wait_for_event(self._stopping, POLL / 1000)
                yield False


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """Return the state of files; it differs from an earlier one if a file has changed."""
    found: Fingerprint = {}
    for file in files:
        try:
            stat = file.stat()
        except (OSError, ValueError, RuntimeError):  # also for impossible names and symlink loops
            found[file] = None
        else:
            found[file] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def _folders(files: Iterable[Path]) -> set[Path]:
    """Return the folders of the files, of the targets of symlinks, and of the symlinks in between.

    A file adds no folder if its path cannot be resolved because of its name, its links or its permissions.
    """
    folders: set[Path] = set()
    for file in files:
        try:
            own = {path.parent for path in (file, file.parent.resolve() / file.name, file.resolve())}
            if file.parent.is_symlink():
                own.add(file.parent.parent)
            folders |= {folder for folder in own if folder.is_dir()}
        except (OSError, ValueError, RuntimeError):
            continue
    return folders


def _is_of_interest(path: str) -> bool:
    """Return False for the files that a running router writes itself: databases and compiled Python."""
    return not path.endswith((".db", "-wal", "-shm", "-journal", ".pyc", "__pycache__"))
