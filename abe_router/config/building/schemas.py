"""Loads the schemas that the file names, and reports their faults at the right place."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from abe_router.config.language.pointer import JsonPositions, below
from abe_router.config.reading.code import Code
from abe_router.config.reading.faults import Faults, Span
from abe_router.config.reading.node import YamlNode
from abe_router.errors import SchemaFault, SchemaInvalid
from abe_router.files.source import Source
from abe_router.schema import Schema, SchemaFolder
from abe_router.text import did_you_mean

_CODES = {
    "missing": Code.SCHEMA_MISSING,
    "syntax": Code.SCHEMA_SYNTAX,
    "schema": Code.SCHEMA_INVALID,
    "dialect": Code.SCHEMA_DIALECT,
    "outside": Code.SCHEMA_OUTSIDE,
    "reference": Code.SCHEMA_REFERENCE,
    "unreadable": Code.SCHEMA_UNREADABLE,
    "ignored": Code.KEYWORD_IGNORED,
}


class Schemas:
    """Loads the schemas that the routes file names. It adds the faults of a faulty one and returns None."""

    def __init__(self, folder: SchemaFolder, root: YamlNode, faults: Faults) -> None:
        self._folder, self._root, self._faults = folder, root, faults
        # `Path.is_dir` raises OSError for a name that no file can have.
        self._is_there, self._told = os.path.isdir(folder.root), False  # noqa: PTH112
        self._positions: dict[Path, JsonPositions] = {}

    def load(self, name: str, place: list[str | int]) -> Schema | None:
        """Return the schema in the file `name`, which the routes file names at `place`."""
        return self._try(lambda: self._folder.load(name), place)

    def inline(self, value: Any, place: list[str | int]) -> Schema | None:
        """Return the schema that is written in the routes file at `place`."""
        name = ".".join(map(str, place[1:]))
        return self._try(lambda: self._folder.inline(value, name), place)

    def _report_folder(self, place: list[str | int]) -> None:
        """Report once that there is no folder: where the file names it, or else at its first schema."""
        if self._told:
            return
        self._told, folder = True, self._folder.root
        given = self._root.get(["schemas"])
        said = given.value if given is not None and isinstance(given.value, str) else folder.name
        hint = f"create `{_shown(folder)}`, or name another folder in `schemas`"
        with suppress(OSError):
            beside = [path.name for path in folder.parent.iterdir() if path.is_dir()]
            hint = did_you_mean(folder.name, beside) or hint
        span = self._root.span_at(["schemas"] if given is not None else place)
        self._faults.add(Code.SCHEMA_MISSING, f"the folder `{said}` does not exist", span, hint=hint)

    def _try(self, make: Callable[[], Schema], place: list[str | int]) -> Schema | None:
        try:
            schema = make()
            for fault in schema.ignored:
                self._report(fault, place)
            return schema
        except SchemaInvalid as error:
            for fault in error.faults:
                self._report(fault, place)
            return None

    def _span_in(self, path: Path, fault: SchemaFault) -> Span:
        if path not in self._positions:
            text = ""
            with suppress(OSError, ValueError):
                text = Source.read(path).data.decode("utf-8-sig", "replace")
            self._positions[path] = JsonPositions(text)
        return self._positions[path].span(fault.pointer, of_key=fault.kind == "ignored")

    def _report(self, fault: SchemaFault, place: list[str | int]) -> None:
        code, path = _CODES[fault.kind], fault.path
        if path is not None:
            span = Span(fault.line, fault.column) if fault.line else self._span_in(path, fault)
            self._faults.add(code, fault.message, span, hint=fault.hint, path=_shown(path))
            return
        if fault.kind == "missing" and not self._is_there:
            self._report_folder(place)
            return
        path_of = self._root.name_at if fault.kind == "ignored" else self._root.span_at
        span = path_of([*place, *below(self._root.at(place), fault.pointer)])
        hint = fault.hint
        if fault.kind == "missing" and not hint:
            hint = f"schemas are read from {_shown(self._folder.root)}"
        self._faults.add(code, fault.message, span, hint=hint)


def _shown(path: Path) -> Path:
    """Return the path relative to the current folder, if it is below it."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):
        return Path(os.path.normpath(path))
