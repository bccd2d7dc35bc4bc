"""Edit records: every route table that a running router has accepted, with the files that it was read from.

The bucket `edits` has one entry for each edit, named by its number. The bucket `edit-files` has the files of
each revision, so an edit and its return share them. The files are the bytes on disk: variables are not
replaced in them, so no secret of the environment enters the backend.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from abe_router.backend import Backend, Entry, read_stored
from abe_router.config.building.loader import Loader
from abe_router.errors import ConfigError
from abe_router.files.source import Source
from abe_router.routing.table import RouteTable

#: The bucket with one entry for each edit, and the bucket with the files of each revision.
EDITS, FILES = "edits", "edit-files"


class EditRecord(msgspec.Struct, frozen=True):
    """One accepted edit of a routes file.

    `path` is the absolute path of the file on `host`, where the process `pid` accepted the edit first, in
    seconds since the epoch. `replaces` is the revision of the edit before it, or empty.
    """

    number: int
    revision: str
    path: str
    host: str
    pid: int
    accepted_at: float
    replaces: str = ""


class EditFiles(msgspec.Struct, frozen=True):
    """The files of one revision, by path relative to a common folder; `routes` is that of the routes file."""

    routes: str
    contents: dict[str, bytes]

    @classmethod
    def read(cls, table: RouteTable) -> EditFiles:
        """Read the files of a table again; raise OSError or ValueError if one of them cannot be read."""
        assert table.path is not None
        paths = [Path(absolute_path(path)) for path in table.sources]
        common = os.path.commonpath([path.parent for path in paths])
        routes = os.path.relpath(absolute_path(table.path), common)
        return cls(
            routes, {os.path.relpath(path, common): Source.read(path.resolve()).data for path in paths}
        )

    @classmethod
    def decode(cls, value: bytes) -> EditFiles:
        """Return the files in an entry; raise ValueError if it cannot be read."""
        try:
            return msgspec.msgpack.decode(zlib.decompress(value), type=cls)
        except zlib.error as error:
            raise ValueError(str(error)) from None

    def encode(self) -> bytes:
        """Return the value of an entry."""
        return zlib.compress(msgspec.msgpack.encode(self))

    def load(self, backend: str, path: Path) -> RouteTable:
        """Return the table of the files, for a routes file that was at `path`; raise ConfigError.

        Handlers are not imported. The files are written to a temporary folder that only the user can read.
        """
        with TemporaryDirectory(prefix="abe-router-") as folder:
            for name, data in self.contents.items():
                file = Path(folder, name)
                if not Path(os.path.normpath(file)).is_relative_to(folder):
                    raise ValueError(f"`{name}` leads out of the folder")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            file = Path(folder, self.routes)
            loader = Loader(file, import_handlers=False, backend=backend, trust_writable=True)
            return replace(loader.load(), path=path)


async def read_edits(backend: Backend) -> Sequence[EditRecord]:
    """Return the records of all edits on a backend, oldest first; none without a key-value store."""
    return decode_edits(await backend.entries(EDITS)) if backend.features.key_value else ()


def decode_edits(entries: Mapping[str, Entry]) -> Sequence[EditRecord]:
    """Return the readable records among the entries of the bucket, oldest first."""
    found = (read_stored(entry.value, EditRecord) for entry in entries.values())
    return sorted((edit for edit in found if edit is not None), key=lambda edit: edit.number)


def edit_in_force(edits: Sequence[EditRecord], path: Path, running: Collection[str]) -> EditRecord | None:
    """Return the edit of a routes file that counts: what workers run, otherwise the last one.

    `running` are the revisions that workers report. Where no record names `path`, the records count if all
    of them name one other path, as they do on another host.
    """
    here = [edit for edit in edits if edit.path == absolute_path(path)]
    if not here and len({edit.path for edit in edits}) == 1:
        here = list(edits)
    live = [edit for edit in here if edit.revision in running]
    return next(reversed(live or here), None)


async def load_edit(backend: Backend, edit: EditRecord, url: str, path: Path) -> RouteTable | None:
    """Return the table of an edit, or None if its files do not make that table here.

    That is so if a variable has another value, or a schema lies at an absolute path and has changed.
    """
    entry = await backend.get(FILES, edit.revision)
    if entry is None:
        return None
    try:
        table = EditFiles.decode(entry.value).load(url, path)
    except (ConfigError, ValueError, OSError):
        return None
    return table if table.revision == edit.revision else None


def absolute_path(path: Path) -> str:
    """Return an absolute path as text, without following links, fit for JSON."""
    return os.path.abspath(path).encode(errors="backslashreplace").decode()  # noqa: PTH100
