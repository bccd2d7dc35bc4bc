"""Edit records: every route table that was offered to a running router, whether it was accepted or rejected.

The bucket `edits` has one entry for each edit, named by its number. The bucket `edit-files` has one entry for
each content of a file, named by its digest, so edits share the files that they did not change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec

from abe_router.backend import Backend, Entry, read_stored
from abe_router.errors import ConfigError
from abe_router.routing.difference import TableChanges
from abe_router.routing.table import RouteTable
from abe_router.runtime.edit_files import EditFiles, MakeLoader, absolute_path, decode_bodies, unimported
from abe_router.runtime.heartbeat import DiagnosticReport
from abe_router.text import counted

#: The bucket with one entry for each edit, and the bucket with one entry for each content of a file.
EDITS, FILES = "edits", "edit-files"

EditState = Literal["accepted", "rejected"]


class EditOrigin(msgspec.Struct, frozen=True):
    """Where an edit came from, as far as it can be known: testimony, and no proof.

    `file` is the file that was changed last, `owner` its owner, and `modified_at` the time of the change, in
    seconds since the epoch. `commit`, `author` and `subject` are those of the last commit that touched the
    files, and `uncommitted` says whether they differ from it; empty outside a repository. `change` is the
    value of $ABE_ROUTER_CHANGE with which the process was started.
    """

    file: str = ""
    owner: str = ""
    modified_at: float = 0.0
    commit: str = ""
    author: str = ""
    subject: str = ""
    uncommitted: bool = False
    change: str = ""

    @property
    def by(self) -> str:
        """The author: of the commit, or, of changes that are not committed, the owner of the file."""
        return self.owner if self.uncommitted or not self.author else self.author

    @property
    def why(self) -> str:
        """The reason: of the deployer, or of the commit."""
        if self.change:
            return self.change
        return f"uncommitted, after {self.commit}" if self.uncommitted else self.subject


class EditChanges(msgspec.Struct, frozen=True):
    """What an edit changed. `files` are the files that were added, removed or changed.

    `table` is what it changed in the routes, the keys and the options of the file. It is None for an edit
    that was rejected, or if the table before it is unknown.
    """

    files: tuple[str, ...] = ()
    table: TableChanges | None = None

    def summary(self) -> str:
        """Return what changed in one line: the table, or the files if the change of the table is unknown."""
        if self.table is None:
            return ", ".join(self.files)
        return "; ".join(self.table.lines()) or "no route, key or option"


class EditRecord(msgspec.Struct, frozen=True):
    """One edit of a routes file that was offered to a running router.

    `revision` is that of the table, or empty for an edit that was rejected because of its `diagnostics`.
    `path` is the absolute path of the file on `host`, where the process `pid` was offered the edit first, at
    `offered_at` in seconds since the epoch. `replaces` is the revision that was accepted before it, or empty.

    `routes` is the name of the routes file among `files`, which maps names to digests. `files` is empty if
    they changed before they could be read. `loads_as` is the revision of the table that the files make. It
    differs from `revision` if credentials were replaced in them, and is empty if it is unknown. `warnings`
    are those of an accepted table.
    """

    number: int
    state: EditState
    revision: str
    path: str
    host: str
    pid: int
    offered_at: float
    replaces: str = ""
    routes: str = ""
    files: Mapping[str, str] = {}
    loads_as: str = ""
    changes: EditChanges = EditChanges()
    origin: EditOrigin = EditOrigin()
    diagnostics: tuple[DiagnosticReport, ...] = ()
    warnings: tuple[DiagnosticReport, ...] = ()

    @property
    def change(self) -> str:
        """What it changed in one line, with the number of its warnings, or its first fault."""
        if not self.diagnostics:
            warned = counted(len(self.warnings), "warning") if self.warnings else ""
            return "; ".join(filter(None, (self.changes.summary(), warned)))
        first, more = self.diagnostics[0], len(self.diagnostics) - 1
        return f"line {first.line}: {first.message}{f' (+{more})' if more else ''}"


async def read_edits(backend: Backend) -> Sequence[EditRecord]:
    """Return the records of all edits on a backend, oldest first; none without a key-value store."""
    return decode_edits(await backend.entries(EDITS)) if backend.features.key_value else ()


def decode_edits(entries: Mapping[str, Entry]) -> Sequence[EditRecord]:
    """Return the readable records among the entries of the bucket, oldest first."""
    found = (read_stored(entry.value, EditRecord) for entry in entries.values())
    return sorted((edit for edit in found if edit is not None), key=lambda edit: edit.number)


def edit_in_force(edits: Sequence[EditRecord], path: Path, running: Collection[str]) -> EditRecord | None:
    """Return the edit of a routes file that counts: what workers run, otherwise the last accepted one.

    `running` are the revisions that workers report. Where no record names `path`, the records count if all
    of them name one other path, as they do on another host.
    """
    accepted = [edit for edit in edits if edit.state == "accepted"]
    here = [edit for edit in accepted if edit.path == absolute_path(path)]
    if not here and len({edit.path for edit in accepted}) == 1:
        here = accepted
    live = [edit for edit in here if edit.revision in running]
    return next(reversed(live or here), None)


async def read_files(backend: Backend, edit: EditRecord) -> EditFiles:
    """Return the files of an edit; raise ValueError if they are not kept."""
    if not edit.files:
        raise ValueError(f"the files of edit {edit.number} changed before they could be read")
    bodies = {}
    for digest in dict.fromkeys(edit.files.values()):
        if (entry := await backend.get(FILES, digest)) is not None:
            bodies[digest] = entry.value
    return decode_bodies(edit.routes, edit.files, bodies)


async def load_edit(
    backend: Backend, edit: EditRecord, url: str, path: Path, make_loader: MakeLoader = unimported
) -> RouteTable | None:
    """Return the table of an edit, or None if its files do not make that table here.

    That is so if a variable has another value, or a schema lies at an absolute path and has changed.
    """
    try:
        files = await read_files(backend, edit)
        table = await asyncio.to_thread(files.load, url, path, make_loader)
    except (ConfigError, ValueError, OSError):
        return None
    return replace(table, revision=edit.revision) if table.revision == edit.loads_as else None
