"""An edit of the routes file, carried to the router.

What counts is the content: a save that changes no byte changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from abe_router.config.building.loader import Loader
from abe_router.diagnostic import Diagnostic
from abe_router.errors import ConfigError
from abe_router.files.watch import Fingerprint, Watch, fingerprint
from abe_router.observe.events import Events, Reloaded, ReloadRejected, RestartNeeded
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)


class Reloader:
    """Follows the files of a table and applies what they become; a faulty edit changes nothing.

    `run` goes on until `stop`, whatever an edit brings. Loading happens in a thread, so that running
    handlers are not held up.
    """

    def __init__(self, loader: Loader, router: Reconciler, events: Events) -> None:
        self._loader, self._router, self._events = loader, router, events
        self._watch = Watch(lambda: loader.files | sources(router.table))
        self._applying: set[asyncio.Task[Reloaded]] = set()
        self._told: Fingerprint = {}
        #: The faults of the last edit; empty when it was accepted.
        self.rejected: tuple[Diagnostic, ...] = ()

    @property
    def watching(self) -> bool:
        """Whether the folders are being watched."""
        return self._watch.watching

    def stop(self) -> None:
        """Make `run` end; idempotent."""
        self._watch.stop()

    async def run(self) -> None:
        """Watch until stopped, then wait for the changes under way."""
        seen: Fingerprint = {}
        self._told = fingerprint(sources(self._router.table))
        async for changed in self._watch.signs():
            try:
                # Taken before the files are read: an edit in between differs from it, and is seen next time.
                now = fingerprint(self._loader.files)
                if now != seen or (changed and self.rejected):
                    seen = now
                    await self.reload()
                self._tell_of_code()
            except Exception:  # noqa: BLE001  whoever no longer looks misses the mending too
                _log.exception("an edit could not be followed, the next one will be")
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
        except Exception:  # noqa: BLE001  what nobody foresaw changes nothing either
            _log.exception("an edit could not be read, nothing changed")
            return
        if self._router.stopped:  # while the files were read
            return
        old = self._router.table
        if table.revision == old.revision and not self.rejected:
            return
        self.rejected = ()
        if (table.backend, table.prefix) != (old.backend, old.prefix) and table.path is not None:
            self._events.emit(RestartNeeded("the backend", table.path))
        # Not awaited: a drain may take long, and the next edit must not wait for it.
        applying = asyncio.create_task(self._router.apply(table))
        self._applying.add(applying)
        applying.add_done_callback(self._applying.discard)

    def _tell_of_code(self) -> None:
        now = fingerprint(sources(self._router.table))
        for path, state in now.items():
            if path in self._told and self._told[path] != state:
                self._events.emit(RestartNeeded("handler code", path))
        self._told = now


def sources(table: RouteTable) -> set[Path]:
    """Return the files in which the handlers of a table stand."""
    return {route.handler.source for route in table.routes if route.handler.source is not None}
