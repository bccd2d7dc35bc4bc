"""The pages of edits: the history of the routes file; one edit with its diagnostics and its difference."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from abe_router.backend import Backend
from abe_router.errors import BackendError
from abe_router.http.access import Role, caller_of, require
from abe_router.http.dashboard.page import PageRoute, Pages, read_number, tried
from abe_router.http.endpoint import path_number
from abe_router.http.site import SharedAnswer, Site
from abe_router.operations.errors import OperationError, UnknownEdit
from abe_router.operations.history import (
    Edit,
    EditContents,
    diff_edits,
    find_edit,
    read_contents,
    read_history,
    render_diagnostics,
)
from abe_router.runtime.edit_record import EditRecord
from abe_router.text import mask_credentials, printable

#: Edits that the page shows. A backend keeps fewer, besides those that run.
MOST_EDITS = 500
#: Most lines of a difference, and most characters of a file, that a page shows.
MOST_LINES, MAX_FILE = 2_000, 200_000
STATES = ("accepted", "rejected")

_CODE = re.compile(r"\033\[([0-9;]*)m")
#: What the style sheet calls the colours that `diagnostic` uses.
_CLASSES = {"1;31": "e", "1;33": "w", "1;32": "ok", "1;36": "n", "1;34": "n", "1": "b"}


@dataclass(frozen=True)
class FileLink:
    """A file of an edit: its name, and whether the edit added, removed or changed it."""

    name: str
    changed: bool


def routes(site: Site, pages: Pages) -> list[Route]:
    """Return the pages."""
    shared: SharedAnswer[Sequence[Edit]] = SharedAnswer(
        lambda: read_history(site.source.backend, limit=MOST_EDITS)
    )

    async def list_edits(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        found, failure = await tried(shared.get())
        wanted, state = request.query_params.get("q", "").lower(), request.query_params.get("state", "")
        edits = [
            edit
            for edit in found or ()
            if (state not in STATES or edit.record.state == state) and wanted in _text_of(edit)
        ]
        return await pages.render(
            request,
            "edits.html",
            title="Edits",
            edits=edits,
            total=len(found or ()),
            failure=failure,
            states=STATES,
        )

    async def one_edit(request: Request) -> Response:
        require(request, Role.VIEWER, "#")
        number, backend = path_number(request), site.source.backend
        history = await shared.get()
        edit = next((each for each in history if each.record.number == number), None)
        record = edit.record if edit else await find_edit(backend, number)
        reads = caller_of(request).allows(Role.READER, "#")
        contents, lost = await _contents(backend, number) if reads else (None, "")
        bases = [each.record for each in history if each.record.number != number]
        base = read_number(request, "diff", _base(record, history), most=10**9)
        lines, no_diff = await _difference(backend, number, base) if reads and base else ((), "")
        text = await asyncio.to_thread(render_diagnostics, record, contents, color=True)
        name = request.query_params.get("file", "")
        shown = contents.files.get(name) if contents else None
        return await pages.render(
            request,
            "edit.html",
            title=f"Edit {number}",
            record=record,
            running=edit.running if edit else 0,
            by=record.origin.by,
            why=record.origin.why,
            diagnostics=coloured(text),
            reads=reads,
            lost=lost,
            contents=contents,
            files=[FileLink(each, each in record.changes.files) for each in sorted(record.files)],
            name=name,
            text=None if shown is None else printable_lines(shown[:MAX_FILE].replace("\r\n", "\n")),
            is_cut=len(shown or "") > MAX_FILE,
            base=base,
            bases=bases,
            lines=[(_kind(line), printable(line)) for line in lines[:MOST_LINES]],
            cut=max(0, len(lines) - MOST_LINES),
            no_diff=no_diff,
        )

    return [
        PageRoute("/edits", list_edits, Role.VIEWER),
        PageRoute("/edits/{number}", one_edit, Role.VIEWER),
    ]


def coloured(text: str) -> Markup:
    """Return text of a terminal as HTML: its colours become classes, and everything else is escaped."""
    parts = _CODE.split(text)
    found, is_open = [escape(printable_lines(parts[0]))], False
    for code, part in zip(parts[1::2], parts[2::2], strict=True):
        if is_open:
            found.append(Markup("</span>"))
        name = _CLASSES.get(code)
        is_open = name is not None
        if name is not None:
            found.append(Markup('<span class="{}">').format(name))
        found.append(escape(printable_lines(part)))
    if is_open:
        found.append(Markup("</span>"))
    return Markup("").join(found)


def printable_lines(text: str) -> str:
    """Return a text with every character escaped that hides or reorders others; its lines stay."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))


def _text_of(edit: Edit) -> str:
    """Return what the filter looks at, in lower case."""
    record = edit.record
    said = (str(record.number), record.path, record.revision, edit.by, edit.why, record.change)
    return " ".join(said).lower()


def _base(record: EditRecord, history: Sequence[Edit]) -> int:
    """Return the edit that one is compared with: the accepted one before it, or 0 if none is kept."""
    before = (each.record for each in history if each.record.number < record.number)
    return next((e.number for e in before if e.state == "accepted" and e.path == record.path), 0)


async def _contents(backend: Backend, number: int) -> tuple[EditContents | None, str]:
    try:
        return await read_contents(backend, number), ""
    except UnknownEdit as error:
        return None, str(error)


async def _difference(backend: Backend, number: int, base: int) -> tuple[Sequence[str], str]:
    """Return the lines of a difference, and why there are none."""
    try:
        lines = await diff_edits(backend, number, base)
    except (OperationError, BackendError) as error:
        return (), mask_credentials(str(error))
    return lines, "" if lines else f"edit {number} has the files of edit {base}"


def _kind(line: str) -> str:
    """Return the class of a line of a patch."""
    if line.startswith(("+++", "---")):
        return "b"
    return {"+": "add", "-": "del", "@": "n"}.get(line[:1], "")
