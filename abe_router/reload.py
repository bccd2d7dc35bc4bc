"""An edit of the routes file, carried to the router.

Directories are watched, not files: an editor's atomic save replaces the file and a ConfigMap swap the
symlink, and a watch on the file itself would be lost with it. What counts is the content: a save that
changes no byte changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path

from watchfiles import Change, awatch

from abe_router.config import Loader
from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError
from abe_router.event import Events, Reloaded, ReloadRejected, RestartNeeded
from abe_router.route import RouteTable
from abe_router.router import Router

_log = logging.getLogger(__name__)

#: Quiet time after a change before it is looked at, and how often changes are gathered, in milliseconds.
DEBOUNCE, STEP = 100, 20
#: A look at the files without any sign of change, in milliseconds: for filesystems that give none, and for
#: what changed while the watch was not yet, or no longer, on the right folders.
POLL = 500

#: The state of files: of each its inode, size and time of change, or None where there is none.
Fingerprint = dict[Path, tuple[int, int, int] | None]


class Reloader:
    """Follows the files of a table and applies what they become; a faulty edit changes nothing.

    `run` goes on until `stop`. Loading happens in a thread, so that running handlers are not held up.
    """

    def __init__(self, loader: Loader, router: Router, events: Events) -> None:
        self._loader, self._router, self._events = loader, router, events
        self._stopping = asyncio.Event()
        self._applying: set[asyncio.Task[Reloaded]] = set()
        self._told: Fingerprint = {}
        self._loads = 0
        #: The faults of the last edit; empty when it was accepted.
        self.rejected: tuple[Diagnostic, ...] = ()
        #: Whether the folders are being watched.
        self.watching = False

    def stop(self) -> None:
        """Make `run` end; idempotent."""
        self._stopping.set()

    async def run(self) -> None:
        """Watch until stopped, then wait for the changes under way."""
        seen: Fingerprint = {}
        self._told = _fingerprint(_code(self._router.table))
        async for changed in self._signs():
            # Taken before the files are read: an edit in between differs from it, and is seen next time.
            now = _fingerprint(self._loader.files)
            if now != seen or (changed and self.rejected):
                seen = now
                await self.reload()
            self._tell_of_code()
        await asyncio.gather(*self._applying)

    async def reload(self) -> None:
        """Load the files and have the router apply them, unless they have faults or say nothing new."""
        self._loads += 1
        try:
            table = await asyncio.to_thread(self._loader.load)
        except ConfigError as error:
            if error.diagnostics != self.rejected:
                self.rejected = error.diagnostics
                self._events.emit(ReloadRejected(error.diagnostics))
            return
        old = self._router.table
        if table.digest == old.digest and not self.rejected:
            return
        self.rejected = ()
        if (table.backend, table.prefix) != (old.backend, old.prefix) and table.path is not None:
            self._events.emit(RestartNeeded("the backend", table.path))
        # Not awaited: a drain may take long, and the next edit must not wait for it.
        applying = asyncio.create_task(self._router.apply(table))
        self._applying.add(applying)
        applying.add_done_callback(self._applying.discard)

    def _folders(self) -> set[Path]:
        return _folders([*self._loader.files, *_code(self._router.table)])

    def _tell_of_code(self) -> None:
        now = _fingerprint(_code(self._router.table))
        for path, state in now.items():
            if path in self._told and self._told[path] != state:
                self._events.emit(RestartNeeded("handler code", path))
        self._told = now

    async def _signs(self) -> AsyncIterator[bool]:
        """Yield whenever it is worth a look: True after a change that was seen, False from time to time."""
        while not self._stopping.is_set():
            folders = self._folders()
            try:
                async for changes in awatch(
                    *folders,
                    watch_filter=_is_of_interest,
                    debounce=DEBOUNCE,
                    step=STEP,
                    stop_event=self._stopping,
                    rust_timeout=POLL,
                    yield_on_timeout=True,
                    recursive=False,
                    ignore_permission_denied=True,
                ):
                    loads, self.watching = self._loads, True
                    yield bool(changes)
                    if loads != self._loads and self._folders() != folders:
                        break
            except (OSError, RuntimeError) as error:  # too many watches, a folder that went away
                _log.warning("files are polled, for they cannot be watched: %s", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL / 1000):
                        await self._stopping.wait()
                yield False


def _code(table: RouteTable) -> set[Path]:
    return {route.handler.source for route in table.routes if route.handler.source is not None}


def _folders(files: Iterable[Path]) -> set[Path]:
    """Return the folders of the files, of what they are links to, and of the links on the way."""
    folders = set()
    for file in files:
        for place in (file, file.parent.resolve() / file.name, file.resolve()):
            folders.add(place.parent)
        if file.parent.is_symlink():
            folders.add(file.parent.parent)
    return {folder for folder in folders if folder.is_dir()}


def _is_of_interest(change: Change, path: str) -> bool:  # noqa: ARG001
    """Pass over what a running router writes itself: databases and compiled Python."""
    return not path.endswith((".db", "-wal", "-shm", "-journal", ".pyc", "__pycache__"))


def _fingerprint(files: Iterable[Path]) -> Fingerprint:
    found: Fingerprint = {}
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            found[file] = None
        else:
            found[file] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found
