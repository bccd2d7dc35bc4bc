"""A fault in a file, kept as data: what, where, and how to mend it.

The shape follows the rustc guide: the message stands on its own, the label may be shorter because it
points, and only the hint says how to mend it. Rendering is elsewhere in this file, so that `check`, a
rejected reload and the JSON forms all show the same fault.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """How bad it is: an error refuses the file, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One fault. Lines and columns count from 1; columns count characters.

    `width` is the number of characters the carets cover, at least 1, all on `line`.
    """

    path: Path
    line: int
    column: int
    code: str
    severity: Severity
    message: str
    label: str = ""
    hint: str = ""
    width: int = 1

    def to_json(self) -> dict[str, object]:
        """Return the fault as plain JSON values."""
        return {**asdict(self), "path": str(self.path), "severity": str(self.severity)}


def _columns(text: str) -> int:
    """Count the terminal cells of `text`: wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def render_text(diagnostic: Diagnostic, source: str | None, *, color: bool = False) -> str:
    """Render one fault in the style of rustc; `source` is the text of the file, None if unreadable."""
    d = diagnostic
    tint = "\033[1;31m" if d.severity is Severity.ERROR else "\033[1;33m"
    blue, bold, reset = ("\033[1;34m", "\033[1m", "\033[0m") if color else ("", "", "")
    tint = tint if color else ""
    out = [f"{tint}{d.severity}[{d.code}]{reset}{bold}: {d.message}{reset}"]
    lines = source.splitlines() if source is not None else []
    gutter = " " * len(str(d.line))
    out.append(f"{gutter}{blue}-->{reset} {d.path}:{d.line}:{d.column}")
    if 1 <= d.line <= len(lines):
        text = lines[d.line - 1].replace("\t", " ")
        before = " " * _columns(text[: d.column - 1])
        carets = "^" * max(1, _columns(text[d.column - 1 : d.column - 1 + d.width]))
        label = f" {d.label}" if d.label else ""
        out.append(f"{gutter} {blue}|{reset}")
        out.append(f"{blue}{d.line} |{reset} {text}")
        out.append(f"{gutter} {blue}|{reset} {before}{tint}{carets}{label}{reset}")
    if d.hint:
        out += ["", f"{blue}hint{reset}: {d.hint}"]
    return "\n".join(out) + "\n"


def render_github(diagnostic: Diagnostic) -> str:
    """Render one fault as a GitHub Actions workflow command."""
    d = diagnostic
    text = f"{d.message}. hint: {d.hint}" if d.hint else d.message
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    place = f"file={d.path},line={d.line},col={d.column},endColumn={d.column + d.width}"
    return f"::{d.severity} {place},title={d.code}::{text}"


def render_all(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """Render many faults as text, reading each source file once, and close with a count."""
    sources: dict[Path, str | None] = {}
    found: Sequence[Diagnostic] = sorted(diagnostics)
    blocks = []
    for diagnostic in found:
        if diagnostic.path not in sources:
            try:
                sources[diagnostic.path] = diagnostic.path.read_text("utf-8", "replace")
            except OSError:
                sources[diagnostic.path] = None
        blocks.append(render_text(diagnostic, sources[diagnostic.path], color=color))
    counts = [
        f"{n} {severity}{'s' if n > 1 else ''}"
        for severity in Severity
        if (n := sum(d.severity is severity for d in found))
    ]
    return "\n".join([*blocks, ", ".join(counts)]) if counts else ""
