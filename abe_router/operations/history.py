"""The history of edits: what was offered, by whom and why, what it changed, and its files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from pathlib import Path

import msgspec

from abe_router.backend import Backend
from abe_router.diagnostic import render_all
from abe_router.operations.errors import OperationRefused, UnknownEdit
from abe_router.runtime.edit_files import MASK
from abe_router.runtime.edit_record import EditRecord, read_edits, read_files
from abe_router.runtime.heartbeat import read_workers


class Edit(msgspec.Struct, frozen=True):
    """One edit of the history. `running` is the number of running workers that run its table.

    `by` and `why` are the most likely author and reason, from its origin.
    """

    record: EditRecord
    running: int
    by: str
    why: str


class EditContents(msgspec.Struct, frozen=True):
    """The files of an edit as text, by name; `routes` is the name of the routes file.

    With `masked`, credentials of the routes file were replaced by `***` before it was stored.
    """

    number: int
    routes: str
    files: Mapping[str, str]
    masked: bool


async def read_history(backend: Backend, *, limit: int = 50) -> Sequence[Edit]:
    """Return the newest edits of all files on a backend, newest first."""
    _require_store(backend)
    running = [worker.revision for worker in (await read_workers(backend)).values() if worker]
    found = []
    # An edit and its return have the same revision: the later one is in force.
    newest = set[tuple[str, str]]()
    for record in reversed(await read_edits(backend)):
        is_newest = bool(record.revision) and (record.path, record.revision) not in newest
        newest.add((record.path, record.revision))
        workers = running.count(record.revision) if is_newest else 0
        found.append(Edit(record, workers, record.origin.by, record.origin.why))
    return found[:limit]


async def find_edit(backend: Backend, number: int) -> EditRecord:
    """Return the record of an edit. Raise UnknownEdit if it is not kept."""
    _require_store(backend)
    edits = await read_edits(backend)
    found = next((edit for edit in edits if edit.number == number), None)
    if found is None:
        kept = f"edits {edits[0].number} to {edits[-1].number} are kept" if edits else "no edit is recorded"
        raise UnknownEdit(f"edit {number} is not kept", hint=kept)
    return found


async def read_contents(backend: Backend, number: int) -> EditContents:
    """Return the files of an edit. Raise UnknownEdit if the edit or its files are not kept."""
    record = await find_edit(backend, number)
    try:
        files = await read_files(backend, record)
    except ValueError as error:
        raise UnknownEdit(f"the files of edit {number} are not kept: {error}") from None
    texts = {name: data.decode(errors="backslashreplace") for name, data in files.contents.items()}
    masked = MASK in files.contents.get(record.routes, b"")
    return EditContents(number, record.routes, texts, masked)


async def diff_edits(backend: Backend, number: int, base: int) -> Sequence[str]:
    """Return the lines of the difference from edit `base` to edit `number`, as a patch; none if they agree.

    Raise UnknownEdit if one of the edits or its files are not kept.
    """
    new, old = await read_contents(backend, number), await read_contents(backend, base)
    return await asyncio.to_thread(lambda: list(_diff(old, new)))  # of long files it takes seconds


def render_diagnostics(edit: EditRecord, contents: EditContents | None = None, *, color: bool = False) -> str:
    """Return why an edit was rejected, or its warnings, as `check` prints them; empty if it has none.

    The lines of the files are shown if `contents` has them.
    """
    texts = contents.files if contents is not None else {}

    def read(path: Path) -> str | None:
        # The names begin at a folder that is known, the path may begin where the process ran.
        wanted = f"/{path.as_posix().removeprefix('./').removeprefix('/')}"
        folder = edit.path.removesuffix(edit.routes)
        found = [text for name, text in texts.items() if f"{folder}{name}".endswith(wanted)]
        return found[0] if len(found) == 1 else None

    return render_all(
        (report.diagnostic() for report in edit.diagnostics or edit.warnings), color=color, read=read
    )


def _diff(old: EditContents, new: EditContents) -> Iterator[str]:
    for name in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(name, ""), new.files.get(name, "")
        labels = (f"edit {old.number}/{name}", f"edit {new.number}/{name}")
        yield from unified_diff(before.splitlines(), after.splitlines(), *labels, lineterm="")


def _require_store(backend: Backend) -> None:
    if not backend.features.key_value:
        raise OperationRefused(f"backend `{backend.url}` cannot keep a history of edits")
