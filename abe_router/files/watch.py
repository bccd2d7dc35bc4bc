"""Files, watched for changes in whichever way they are saved.

Directories are watched, not files: an editor's atomic save replaces the file and a ConfigMap swap the
symlink, and a watch on the file itself would be lost with it. A sign is only a reason to look: what
changed is told by the fingerprint.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch

_log = logging.getLogger(__name__)

#: Quiet time after a change before it is looked at, and how often changes are gathered, in milliseconds.
DEBOUNCE, STEP = 100, 20
#: A look at the files without any sign of change, in milliseconds: for filesystems that give none, and for
#: what changed while the watch was not yet, or no longer, on the right folders.
POLL = 500
#: The longest time between two attempts to watch what cannot be watched, in seconds: it is polled meanwhile.
AGAIN = 30.0

#: The state of files: of each its inode, size and time of change, or None where there is none.
Fingerprint = dict[Path, tuple[int, int, int] | None]


class Watch:
    """Gives signs that files may have changed; `files` is asked again and again which ones matter."""

    def __init__(self, files: Callable[[], Iterable[Path]]) -> None:
        self._files = files
        self._stopping = asyncio.Event()
        #: Whether the folders are being watched.
        self.watching = False

    def stop(self) -> None:
        """Make `signs` end; idempotent."""
        self._stopping.set()

    async def signs(self) -> AsyncIterator[bool]:
        """Yield whenever it is worth a look: True after a change that was seen, False from time to time."""
        looked, again, told = -math.inf, 0.0, ""
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
                    self.watching, again = True, 0.0
                    changed = any(_is_of_interest(path) for _, path in changes)
                    # A busy database among the files gives signs without end, and no quiet to look in.
                    if not changed and time.monotonic() < looked + POLL / 1000:
                        continue
                    looked = time.monotonic()
                    yield changed
                    now = set(self._files())
                    if (changed or now != files) and _folders(now) != folders:
                        break
                    files = now
                continue
            # Too many watches, a folder that went away, a name that is not UTF-8: the looking goes on.
            except Exception as error:  # noqa: BLE001
                self.watching = False
                if (text := str(error)) != told:
                    _log.warning("files are polled, for they cannot be watched: %s", text)
                    told = text
            again = min(AGAIN, 2 * again or POLL / 1000)
            until = time.monotonic() + again
            while time.monotonic() < until and not self._stopping.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL / 1000):
                        await self._stopping.wait()
                yield False


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """Return the state of files, to be compared with another."""
    found: Fingerprint = {}
    for file in files:
        try:
            stat = file.stat()
        except (OSError, ValueError, RuntimeError):  # also a name that none can have, and links in a circle
            found[file] = None
        else:
            found[file] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def _folders(files: Iterable[Path]) -> set[Path]:
    """Return the folders of the files, of what they are links to, and of the links on the way.

    A file whose place cannot be looked up, by its name, its links or for want of permission, adds none.
    """
    folders: set[Path] = set()
    for file in files:
        try:
            own = {place.parent for place in (file, file.parent.resolve() / file.name, file.resolve())}
            if file.parent.is_symlink():
                own.add(file.parent.parent)
            folders |= {folder for folder in own if folder.is_dir()}
        except (OSError, ValueError, RuntimeError):
            continue
    return folders


def _is_of_interest(path: str) -> bool:
    """Pass over what a running router writes itself: databases and compiled Python."""
    return not path.endswith((".db", "-wal", "-shm", "-journal", ".pyc", "__pycache__"))
