"""An edit of the routes file, carried to the router.

What counts is the content: a save that changes no byte changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from abe_router.config import Loader
from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError
from abe_router.event import Events, Reloaded, ReloadRejected, RestartNeeded
from abe_router.handler import code_below
from abe_router.route import RouteTable
from abe_router.router import Router
from abe_router.watch import Fingerprint, Watch, fingerprint


class Reloader:
    """Follows the files of a table and applies what they become; a faulty edit changes nothing.

    `run` goes on until `stop`. Loading happens in a thread, so that running handlers are not held up.
    """

    def __init__(self, loader: Loader, router: Router, events: Events) -> None:
        self._loader, self._router, self._events = loader, router, events
        self._watch = Watch(lambda: loader.files | self.code)
        self._code: tuple[RouteTable, int, frozenset[Path]] | None = None
        self._applying: set[asyncio.Task[Reloaded]] = set()
        self._told: Fingerprint = {}
        #: The faults of the last edit; empty when it was accepted.
        self.rejected: tuple[Diagnostic, ...] = ()

    @property
    def watching(self) -> bool:
        """Whether the folders are being watched."""
        return self._watch.watching

    @property
    def code(self) -> frozenset[Path]:
        """The files of the handlers, and of the modules that were imported from below the file's folder."""
        table, imported = self._router.table, len(sys.modules)
        if self._code is None or self._code[0] is not table or self._code[1] != imported:
            sources = {route.handler.source for route in table.routes if route.handler.source is not None}
            below = code_below(table.path.parent) if table.path else set()
            self._code = (table, imported, frozenset(sources | below))
        return self._code[2]

    def stop(self) -> None:
        """Make `run` end; idempotent."""
        self._watch.stop()

    async def run(self) -> None:
        """Watch until stopped, then wait for the changes under way."""
        seen: Fingerprint = {}
        self._told = fingerprint(self.code)
        async for changed in self._watch.signs():
            # Taken before the files are read: an edit in between differs from it, and is seen next time.
            now = fingerprint(self._loader.files)
            if now != seen or (changed and self.rejected):
                seen = now
                await self.reload()
            self._tell_of_code()
        await asyncio.gather(*self._applying)

    async def reload(self) -> None:
        """Load the files and have the router apply them, unless they have faults or say nothing new."""
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

    def _tell_of_code(self) -> None:
        now = fingerprint(self.code)
        for path, state in now.items():
            if path in self._told and self._told[path] != state:
                self._events.emit(RestartNeeded("handler code", path))
        self._told = now
