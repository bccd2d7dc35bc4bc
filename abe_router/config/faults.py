"""Places in a file, and the faults found at them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from abe_router.config.code import Code
from abe_router.diagnostic import Diagnostic, Severity


class Span(NamedTuple):
    """Part of a line: line and column count from 1, columns and width in characters."""

    line: int = 1
    column: int = 1
    width: int = 1

    def part(self, offset: int, width: int) -> Span:
        """Return the part that begins `offset` characters in."""
        return Span(self.line, self.column + offset, width)


class Faults:
    """Collects what is wrong: of one place one error, the first, and one warning of each code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[Path, Span, Code | None], Diagnostic] = {}

    def add(
        self,
        code: Code,
        message: str,
        span: Span,
        *,
        label: str = "",
        hint: str = "",
        path: Path | None = None,
    ) -> None:
        """Add a fault of the routes file, or of the file at `path`."""
        where, warns = path or self._path, code.startswith("W")
        fault = Diagnostic(
            path=where,
            line=span.line,
            column=span.column,
            code=code.value,
            severity=Severity.WARNING if warns else Severity.ERROR,
            message=message,
            label=label,
            hint=hint,
            width=span.width,
        )
        self._found.setdefault((where, span, code if warns else None), fault)

    @property
    def refused(self) -> bool:
        """Whether there is an error among the faults."""
        return any(fault.severity is Severity.ERROR for fault in self._found.values())

    def all(self) -> tuple[Diagnostic, ...]:
        """Return the faults, ordered by file and place."""
        return tuple(sorted(self._found.values()))
