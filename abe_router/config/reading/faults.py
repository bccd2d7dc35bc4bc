"""Spans of a file, and the faults that were found there."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from abe_router.config.reading.code import Code
from abe_router.config.reading.secrets import Secrets
from abe_router.diagnostic import Diagnostic, Severity
from abe_router.text import did_you_mean, shortened

#: Most errors, and most warnings, of a file. After so many errors the loader stops.
MAX_FAULTS = 200
#: Longest message, label or hint, in characters.
MAX_TEXT = 600
#: Most errors with a suggestion that is searched among the names of the file.
MAX_SUGGESTIONS = 50


#: A line and a column.
_Position = tuple[int, int]


class TooManyFaults(Exception):
    """Raised at the error after `MAX_FAULTS`. Those before it were added, with one that says so."""


class Span(NamedTuple):
    """Part of a line: line and column count from 1, columns and width in characters."""

    line: int = 1
    column: int = 1
    width: int = 1

    def part(self, offset: int, width: int) -> Span:
        """Return the part that begins `offset` characters in."""
        return Span(self.line, self.column + offset, width)


class Faults:
    """Collects faults: the first error at each position, and one warning of each code.

    Texts are cut to a length, and the values of variables are replaced by the variables.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._errors: dict[tuple[Path, int], list[Diagnostic]] = {}
        self._warnings: dict[tuple[Path, Span, Code], Diagnostic] = {}
        self._count = self._suggestions = 0
        self._tolerated: tuple[_Position, _Position] | None = None
        #: The values of variables, which no fault shows.
        self.secrets = Secrets()

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

        A fault at the position of an earlier error is ignored, because it usually repeats that error. Raise
        TooManyFaults when there are too many errors; further warnings are ignored.
        """
        where = path or self._path
        warns = code.startswith("W") or self._tolerates(where, span)
        fault = Diagnostic(
            path=where,
            line=span.line,
            column=span.column,
            code=code.value,
            severity=Severity.WARNING if warns else Severity.ERROR,
            message=self._shown(message),
            label=self._shown(label),
            hint=self._shown(hint),
            width=span.width,
        )
        errors = self._errors.setdefault((where, span.line), [])
        if any(_overlap(fault, error) for error in errors):
            return
        if warns:
            if len(self._warnings) < MAX_FAULTS:
                self._warnings.setdefault((where, span, code), fault)
            return
        if self._count == MAX_FAULTS:
            message = f"more than {MAX_FAULTS} errors; the others are not shown"
            errors.append(replace(fault, code=Code.TOO_LARGE.value, message=message, label="", hint=""))
            raise TooManyFaults
        self._count += 1
        errors.append(fault)

    def tolerate(self, start: Span, end: Span | None) -> None:
        """Make the errors of a part of the routes file warnings, those that were added and those to come."""
        self._tolerated = start[:2], end[:2] if end else (sys.maxsize, 0)
        for (path, line), errors in self._errors.items():
            for error in [each for each in errors if self._tolerates(path, Span(line, each.column))]:
                errors.remove(error)
                self._count -= 1
                span = Span(line, error.column, error.width)
                warning = replace(error, severity=Severity.WARNING)
                self._warnings.setdefault((path, span, Code(error.code)), warning)

    def forget_tolerated(self) -> None:
        """Remove the warnings of what is tolerated."""
        self._warnings = {at: each for at, each in self._warnings.items() if each.code.startswith("W")}

    @property
    def tolerated(self) -> tuple[Diagnostic, ...]:
        """The warnings that would be errors elsewhere in the file."""
        return tuple(fault for fault in self._warnings.values() if not fault.code.startswith("W"))

    def _tolerates(self, path: Path, span: Span) -> bool:
        if self._tolerated is None or path != self._path:
            return False
        start, end = self._tolerated
        return start <= span[:2] < end

    def did_you_mean(self, name: str, known: Iterable[str]) -> str:
        """Return "did you mean `NAME`?" for the closest name of `known`, empty if none is close.

        After many errors it is always empty, because the search takes time.
        """
        self._suggestions += 1
        return did_you_mean(name, known) if self._suggestions <= MAX_SUGGESTIONS else ""

    def _shown(self, text: str) -> str:
        return shortened(self.secrets.hidden_in(text), MAX_TEXT) if text else ""

    @property
    def refused(self) -> bool:
        """Whether there is an error among the faults."""
        return any(self._errors.values())

    def all(self) -> tuple[Diagnostic, ...]:
        """Return the faults, ordered by file and position."""
        return tuple(sorted([*chain.from_iterable(self._errors.values()), *self._warnings.values()]))


def _overlap(one: Diagnostic, other: Diagnostic) -> bool:
    return one.column < other.column + other.width and other.column < one.column + one.width
