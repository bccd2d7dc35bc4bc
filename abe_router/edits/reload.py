"""Reload: follows the routes file and puts each valid edit into force.

Only the content counts: a save that changes no byte changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from abe_router.config.building.loader import Loader
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.edits.history import EditRecorder
from abe_router.errors import ConfigError
from abe_router.files.watch import Fingerprint, Watch, fingerprint
from abe_router.messages.pattern import matches
from abe_router.observe.events import (
    ConfigWarning,
    Events,
    Reloaded,
    Reloading,
    ReloadRejected,
    RestartNeeded,
)
from abe_router.routing.difference import RESTART, difference
from abe_router.routing.handler import code_below
from abe_router.routing.table import RouteTable
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)


class Reloader:
    """Watches the files of a table, and applies the table that they become after an edit.

    An edit with errors changes nothing. `run` continues until `stop`, whatever an edit contains. A thread
    loads the files, so that handlers keep running. `recorder` records each edit, accepted or rejected.
    """

    def __init__(
        self,
        loader: Loader,
        reconciler: Reconciler,
        events: Events,
        *,
        recorder: EditRecorder | None = None,
    ) -> None:
        self._loader, self._reconciler, self._events = loader, reconciler, events
        self._recorder = recorder
        self._watch = Watch(lambda: loader.files | sources(reconciler.table))
        self._applying: set[asyncio.Task[Reloaded]] = set()
        self._code: Fingerprint = {}
        #: The files of code as they were when `outdated` met them first.
        self._loaded: Fingerprint = {}
        #: The diagnostics of the last edit; empty if it was accepted.
        self.rejected: tuple[Diagnostic, ...] = ()

    @property
    def watching(self) -> bool:
        """Whether the folders are watched, and not only polled."""
        return self._watch.watching

    def outdated(self) -> Sequence[Path]:
        """Return the files of code that have changed since an earlier call found that they are in use."""
        now = fingerprint(code(self._reconciler.table))
        self._loaded = {path: self._loaded.get(path, state) for path, state in now.items()}
        return sorted(path for path, state in now.items() if state != self._loaded[path])

    def stop(self) -> None:
        """End `run`. Idempotent."""
        self._watch.stop()

    async def run(self) -> None:
        """Follow edits until stopped, then wait for the changes in progress."""
        seen: Fingerprint = {}
        is_first = True
        self._code = fingerprint(sources(self._reconciler.table))
        async for changed in self._watch.signs():
            try:
                # Taken before the files are read: an edit in between differs from it and is seen next time.
                now = fingerprint(self._loader.files)
                if now != seen or (changed and self.rejected):
                    seen = now
                    # The files were loaded before they were watched. To load 1,000 routes again takes a
                    # third of a second from their handlers.
                    if not (is_first and await self._is_current()):
                        await self.reload()
                    is_first = False
                self._report_code()
            except Exception:  # noqa: BLE001  keep watching: the next edit may fix it
                _log.exception("cannot follow an edit; the next edit is followed again")
        await asyncio.gather(*self._applying)

    async def _is_current(self) -> bool:
        """Return whether the table in force is that of the files as they are now."""
        return await asyncio.to_thread(self._loader.is_current, self._reconciler.table.revision)

    async def reload(self) -> None:
        """Load the files and apply the table, unless it has errors or did not change."""
        try:
            table = await asyncio.to_thread(self._loader.load)
            if faults := await asyncio.to_thread(_touched_faults, self._reconciler.table, table):
                raise ConfigError(faults)
        except ConfigError as error:
            if error.diagnostics != self.rejected:
                self.rejected = error.diagnostics
                if self._recorder is not None:
                    self._recorder.reject(self._loader.path, self._loader.files, error.diagnostics)
                self._events.emit(ReloadRejected(error.diagnostics))
            return
        except Exception:  # noqa: BLE001  an unforeseen error changes nothing either
            _log.exception("cannot load an edit, nothing changed")
            return
        if self._reconciler.stopped:  # while the files were loaded
            return
        old = self._reconciler.table
        if table.revision == old.revision and not self.rejected:
            return
        self.rejected = ()
        for option in RESTART:
            if getattr(table, option) != getattr(old, option):
                self._events.emit(RestartNeeded(f"the {option}", self._loader.path))
        known = {(each.path, each.code, each.message) for each in old.warnings}
        new = [each for each in table.warnings if (each.path, each.code, each.message) not in known]
        for warning in ConfigWarning.all_of(new, table.revision):
            self._events.emit(warning)
        self._events.emit(Reloading(table.revision))
        if self._recorder is not None:
            self._recorder.accept(table)
        # Not awaited: a drain may take long, and the next edit must not wait for it.
        applying = asyncio.create_task(self._reconciler.apply(table))
        self._applying.add(applying)
        applying.add_done_callback(self._applying.discard)

    def _report_code(self) -> None:
        """Emit an event for each file of handler code that changed."""
        now = fingerprint(sources(self._reconciler.table))
        for path, state in now.items():
            if path in self._code and self._code[path] != state:
                self._events.emit(RestartNeeded("handler code", path))
        self._code = now


def _touched_faults(old: RouteTable, new: RouteTable) -> Sequence[Diagnostic]:
    """Return the faults in `tests` that refuse an edit: those of a case that names what the edit touches."""
    if not new.case_faults:
        return ()
    changes = difference(old, new)
    routes = {*changes.added, *changes.removed, *changes.routes}
    keys = {*changes.keys_added, *changes.keys_removed, *changes.keys}
    touched = set[str]()
    for case in (*old.cases, *new.cases):
        named = {each.key for each in case.publish} | {each.name for each in case.expect if each.name}
        if named & routes or any(matches(key, name) for key in keys for name in named if "/" not in name):
            touched.add(case.name)
    return [
        replace(fault, severity=Severity.ERROR) for name in touched for fault in new.case_faults.get(name, ())
    ]


def code(table: RouteTable) -> set[Path]:
    """Return the files of code that a process with this table uses, as far as they may change."""
    return sources(table) | (code_below(table.path.parent) if table.path else set())


def sources(table: RouteTable) -> set[Path]:
    """Return the files that define the handlers of a table."""
    return {route.handler.source for route in table.routes if route.handler.source is not None}
