"""The history of edits: each table that is offered to a running router becomes one edit record."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from abe_router.backend import Backend, Entry, next_number
from abe_router.backoff import wait_for_event
from abe_router.diagnostic import Diagnostic
from abe_router.edits.origin import change_of, origin_of
from abe_router.errors import BackendError, ConfigError
from abe_router.routing.difference import TableChanges, difference
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_files import EditFiles, absolute_path, encode_body
from abe_router.runtime.edit_record import (
    EDITS,
    FILES,
    EditChanges,
    EditOrigin,
    EditRecord,
    EditState,
    decode_edits,
    read_files,
)
from abe_router.runtime.heartbeat import WORKERS, DiagnosticReport, decode_reports
from abe_router.text import json_safe

_log = logging.getLogger(__name__)

#: Edits that are kept besides those in force; older ones are deleted.
KEPT = 50
#: How long a worker that is not the first of its supervisor waits before it records, in seconds.
LATER = 1.0
#: Interval at which a record that the backend did not take is tried again, in seconds.
EVERY = 3.0
#: Workers that start within this time of each other, in seconds, may be offered the same edits.
SIMULTANEOUS = 5.0
#: How long a file that no edit names any more is kept, in seconds: another worker may be about to name it.
UNNAMED = 60.0
#: Offers that wait for the backend at most; the oldest are dropped.
MOST_OFFERS = 50

# Several workers are offered the same edits, in the same order, but not at the same time, and one that is
# slow may miss some. Each of them walks along the history: an offer that a later record than the last one it
# saw describes is recorded already. Otherwise it takes the next number by compare-and-set. A worker that
# starts begins at the last edit that was accepted before.
#
# A record is made in steps, and a crash after each of them leaves the history whole:
#
#   1. the contents of the files are stored; until a record names them, nothing reads them
#   2. the record is stored under the next number, or another worker took that number: begin again
#   3. the contents are stored again, because another worker may have found them unnamed after step 1
#   4. records beyond those that are kept are deleted, then the contents that none names are left to expire


@dataclass(frozen=True)
class _Offer:
    """A table that was offered to this process, or the reasons why an edit was rejected.

    `former` is the table that was accepted before it, if this process knows it. `change` is what the deployer
    said about it.
    """

    path: Path
    at: float
    sources: frozenset[Path]
    table: RouteTable | None = None
    former: RouteTable | None = None
    diagnostics: tuple[DiagnosticReport, ...] = ()
    change: str = ""

    @property
    def state(self) -> EditState:
        return "rejected" if self.table is None else "accepted"

    def is_recorded_by(self, edit: EditRecord) -> bool:
        """Return whether a record is that of this offer, made by this or another worker."""
        if self.table is None:
            return edit.state == "rejected" and edit.diagnostics == self.diagnostics
        return edit.state == "accepted" and edit.revision == self.table.revision


class _Evidence(NamedTuple):
    """What can be known about an offer only on this host and now; `files` is None if they have changed."""

    files: EditFiles | None
    loads_as: str
    changes: EditChanges
    origin: EditOrigin


class EditRecorder:
    """Records each edit that it is offered, once for all workers of a backend with a key-value store.

    While the backend is away, offers wait; they are recorded when it is back. To read the files once is
    enough, so workers with a `number` above 1 look later.
    """

    def __init__(self, backend: Backend, *, number: int = 0) -> None:
        self._backend = backend
        self._delay = LATER if number > 1 else 0.0
        self._offers: deque[_Offer] = deque(maxlen=MOST_OFFERS)
        self._offered = asyncio.Event()
        self._seen: int | None = None
        # What the deployer said holds for the table that the process is started with, and for no later one.
        self._change = change_of()
        self._accepted: RouteTable | None = None

    def accept(self, table: RouteTable) -> None:
        """Take an accepted table as the next offer, unless it has no file."""
        change, self._change = self._change, ""
        if table.path is not None and table.revision:
            former, self._accepted = self._accepted, table
            self._offer(_Offer(table.path, time.time(), table.sources, table, former, change=change))

    def reject(self, path: Path, sources: Collection[Path], diagnostics: Sequence[Diagnostic]) -> None:
        """Take a rejected edit as the next offer; `sources` are the files that were looked for."""
        reports = tuple(map(DiagnosticReport.of, diagnostics))
        self._offer(_Offer(path, time.time(), frozenset(sources), diagnostics=reports))

    async def run(self) -> None:
        """Record each offer until cancelled."""
        while True:
            self._offered.clear()
            if self._offers:
                await asyncio.sleep(self._delay)
                with suppress(BackendError):
                    await self.record()
            await wait_for_event(self._offered, EVERY if self._offers else None)

    async def record(self) -> None:
        """Record all offers now. After an error of the backend, those that are left can be recorded later."""
        while self._offers:
            offer = self._offers[0]
            await self._record(offer)
            if self._offers and self._offers[0] is offer:
                self._offers.popleft()

    def _offer(self, offer: _Offer) -> None:
        self._offers.append(offer)
        self._offered.set()

    async def _record(self, offer: _Offer) -> None:
        path, backend = absolute_path(offer.path), self._backend
        while True:
            entries = await backend.entries(EDITS)
            edits = [edit for edit in decode_edits(entries) if edit.path == path]
            accepted = [edit for edit in edits if edit.state == "accepted"]
            last = accepted[-1] if accepted else None
            if (seen := self._seen) is None:
                before = [edit.number for edit in accepted if edit.offered_at < offer.at - SIMULTANEOUS]
                seen = self._seen = before[-1] - 1 if before else 0
            later = (edit for edit in edits if edit.number > seen)
            known = next((edit for edit in later if offer.is_recorded_by(edit)), None)
            if known is not None:
                self._seen = known.number
                return
            evidence = await self._gather(offer, last)
            bodies = (
                [encode_body(data) for data in evidence.files.contents.values()] if evidence.files else []
            )
            await self._store(bodies)
            number = next_number(entries)
            record = _record_of(offer, evidence, number, path, last)
            if await backend.put(EDITS, str(number), msgspec.json.encode(record), expected=0):
                await self._store(bodies)
                await self._prune()
                self._seen = number
                return

    async def _store(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        for digest, body in bodies:
            await self._backend.put(FILES, digest, body)

    async def _gather(self, offer: _Offer, last: EditRecord | None) -> _Evidence:
        before: EditFiles | None = None
        if offer.former is not None and (last is None or offer.former.revision != last.revision):
            offer = replace(offer, former=None)  # another worker was offered an edit that this one missed
        if last is not None:
            with suppress(ValueError):
                before = await read_files(self._backend, last)
        return await asyncio.to_thread(_evidence, offer, before)

    async def _prune(self) -> None:
        """Delete the oldest edits that nothing runs, and let the files expire that no other edit names."""
        backend = self._backend
        edits = decode_edits(await backend.entries(EDITS))
        if len(edits) <= KEPT:
            return
        workers = decode_reports(await backend.entries(WORKERS)).values()
        running = {worker.revision for worker in workers}
        last = {edit.path: edit.number for edit in edits if edit.state == "accepted"}
        gone = [e for e in edits[:-KEPT] if e.revision not in running and e.number != last.get(e.path)]
        unnamed: dict[str, Entry | None] = {}
        for digest in {digest for edit in gone for digest in edit.files.values()}:
            unnamed[digest] = await backend.get(FILES, digest)
        numbers = {edit.number for edit in gone}
        for edit in decode_edits(await backend.entries(EDITS)):  # after the revisions of the files were read
            for digest in edit.files.values() if edit.number not in numbers else ():
                unnamed.pop(digest, None)
        for digest, entry in unnamed.items():
            if entry is not None:
                await backend.put(FILES, digest, entry.value, expected=entry.revision, ttl=UNNAMED)
        for edit in gone:
            await backend.delete(EDITS, str(edit.number))


def _record_of(
    offer: _Offer, evidence: _Evidence, number: int, path: str, last: EditRecord | None
) -> EditRecord:
    files = evidence.files
    contents = files.contents if files else {}
    return EditRecord(
        number=number,
        state=offer.state,
        revision=offer.table.revision if offer.table else "",
        path=path,
        host=socket.gethostname(),
        pid=os.getpid(),
        offered_at=offer.at,
        replaces=last.revision if last else "",
        routes=json_safe(files.routes) if files else "",
        files={json_safe(name): encode_body(data)[0] for name, data in contents.items()},
        loads_as=evidence.loads_as,
        changes=evidence.changes,
        origin=evidence.origin,
        diagnostics=offer.diagnostics,
        warnings=tuple(map(DiagnosticReport.of, offer.table.warnings)) if offer.table else (),
    )


def _evidence(offer: _Offer, before: EditFiles | None) -> _Evidence:
    """Gather what can be known about an offer. It reads files and calls git, so it runs in a thread."""
    origin = origin_of(offer.sources, change=offer.change)
    try:
        read = EditFiles.read(offer.path, offer.sources)
        files, loads_as = read.without_credentials(), ""
    except (OSError, ValueError) as error:
        _log.debug("the files of an edit cannot be recorded: %s", error)
        return _Evidence(None, "", EditChanges(), origin)
    if offer.table is not None:
        revision = offer.table.revision
        try:
            if read.load(offer.table.backend, offer.path).revision != revision:
                return _Evidence(None, "", EditChanges(), origin)  # saved again meanwhile
            loads_as = revision
            if files != read:
                loads_as = files.load(offer.table.backend, offer.path).revision
        except OSError:  # without a folder for temporary files they cannot be loaded
            loads_as = revision if files == read else ""
        except (ConfigError, ValueError):
            loads_as = ""
    return _Evidence(files, loads_as, _changes(offer, before, files), origin)


def _changes(offer: _Offer, before: EditFiles | None, files: EditFiles) -> EditChanges:
    old = before.contents if before else {}
    names = sorted(old.keys() | files.contents.keys())
    changed = tuple(json_safe(name) for name in names if old.get(name) != files.contents.get(name))
    return EditChanges(changed, _table_changes(offer, before))


def _table_changes(offer: _Offer, before: EditFiles | None) -> TableChanges | None:
    """Return what an accepted edit changes in the table before it; None if that one is unknown.

    Only a process that had the table knows its backend: the files are loaded with that of the new one.
    """
    if before is None or offer.table is None:
        return None
    if offer.former is not None:
        return difference(offer.former, offer.table)
    try:
        return difference(before.load(offer.table.backend, offer.path), offer.table)
    except (ConfigError, OSError, ValueError):
        return None
