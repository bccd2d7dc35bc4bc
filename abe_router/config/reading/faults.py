"""Spans of a file, and the faults that were found there."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import NamedTuple

from abe_router.config.reading.code import Code
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
    """Collects faults: the first error at each position, and one warning of each code."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._errors: dict[tuple[Path, int], list[Diagnostic]] = {}
        self._warnings: dict[tuple[Path, Span, Code], Diagnostic] = {}

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
        """Add a fault of the routes file, or of the file at `path`.

        A fault at the position of an earlier error is ignored, because it usually repeats that error.
        """
        where = path or self._path
        warns = code.startswith("W")
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
        errors = self._errors.setdefault((where, span.line), [])
        if any(_overlap(fault, error) for error in errors):
            return
        if warns:
            self._warnings.setdefault((where, span, code), fault)
        else:
            errors.append(fault)

    @property
    def refused(self) -> bool:
        """Whether there is an error among the faults."""
        return any(self._errors.values())

    def all(self) -> tuple[Diagnostic, ...]:
        """Return the faults, ordered by file and position."""
        return tuple(sorted([*chain.from_iterable(self._errors.values()), *self._warnings.values()]))


def _overlap(one: Diagnostic, other: Diagnostic) -> bool:
    return one.column < other.column + other.width and other.column < one.column + one.width
