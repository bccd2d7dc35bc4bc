"""The history of edits: each accepted table becomes one edit record in the backend."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress

import msgspec

from abe_router.backend import Backend
from abe_router.backoff import wait_for_event
from abe_router.errors import BackendError, ConfigError
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_record import EDITS, FILES, EditFiles, EditRecord, absolute_path, decode_edits
from abe_router.runtime.reconciler import Reconciler

_log = logging.getLogger(__name__)

#: Edits that are kept; older ones are deleted.
KEPT = 50
#: How long a worker that is not the first of its supervisor waits before it records, in seconds.
LATER = 1.0
#: Interval at which the table in force is compared with the recorded one, in seconds.
EVERY = 3.0


class EditRecorder:
    """Records the table in force whenever it changes.

    The backend has a key-value store. `accepted` is set whenever an edit was accepted. While the
    backend is away, edits are applied all the same; the last of them is recorded when it is back.

    Several workers apply one edit, and one of them records it: numbers are taken by compare-and-set, and a
    worker that finds its revision on top of the history has nothing to do. To read the files once is enough,
    so workers with a `number` above 1 look later.
    """

    def __init__(
        self, backend: Backend, reconciler: Reconciler, *, accepted: asyncio.Event, number: int = 0
    ) -> None:
        self._backend, self._reconciler, self._accepted = backend, reconciler, accepted
        self._delay = LATER if number > 1 else 0.0

    async def run(self) -> None:
        """Record each table until cancelled."""
        recorded = ""
        while True:
            self._accepted.clear()
            table = self._reconciler.table
            if table.path is not None and table.revision not in ("", recorded):
                await asyncio.sleep(self._delay)
                with suppress(BackendError):
                    await self.record(table)
                    recorded = table.revision
            await wait_for_event(self._accepted, EVERY)

    async def record(self, table: RouteTable) -> None:
        """Record a table, unless it is the last edit of its file or its files have changed."""
        assert table.path is not None
        path = absolute_path(table.path)
        stored = False
        while True:
            entries = await self._backend.entries(EDITS)
            edits = decode_edits(entries)
            last = next((edit for edit in reversed(edits) if edit.path == path), None)
            if last is not None and last.revision == table.revision:
                return
            if not stored:
                files = await asyncio.to_thread(_read, table)
                if files is None:
                    return
                await self._backend.put(FILES, table.revision, files.encode())
                stored = True
            record = EditRecord(
                number=max((int(name) for name in entries if name.isdecimal()), default=0) + 1,
                revision=table.revision,
                path=path,
                host=socket.gethostname(),
                pid=os.getpid(),
                accepted_at=time.time(),
                replaces=last.revision if last else "",
            )
            if await self._backend.put(EDITS, str(record.number), msgspec.json.encode(record), expected=0):
                await self._prune([*edits, record])
                return

    async def _prune(self, edits: list[EditRecord]) -> None:
        """Delete the oldest edits, and the files that no other edit names."""
        kept = {edit.revision for edit in edits[-KEPT:]}
        for edit in edits[:-KEPT]:
            await self._backend.delete(EDITS, str(edit.number))
            if edit.revision not in kept:
                await self._backend.delete(FILES, edit.revision)


def _read(table: RouteTable) -> EditFiles | None:
    """Read the files of a table; return None unless they still make that table.

    So the files of a record always load as its revision, also if an edit is saved meanwhile.
    """
    assert table.path is not None
    try:
        files = EditFiles.read(table)
        return files if files.load(table.backend, table.path).revision == table.revision else None
    except (ConfigError, OSError, ValueError) as error:
        _log.debug("the files of the table in force cannot be recorded now: %s", error)
        return None
