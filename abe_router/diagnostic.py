"""A fault in a file, kept as data: what is wrong, where, and how to fix it.

The shape follows the rustc guide: the message stands on its own, the label may be shorter because it
points, and only the hint says how to fix it. Rendering is elsewhere in this file, so that `check`, a
rejected reload and the JSON forms all show the same fault.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from abe_router.text import counted, mask_options, split_lines


class Severity(StrEnum):
    """How severe a fault is: an error refuses the file, a warning does not.

    A health check also reports what is good to know, and what is well.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    OK = "ok"


_TINTS = {
    Severity.ERROR: "\033[1;31m",
    Severity.WARNING: "\033[1;33m",
    Severity.INFO: "\033[1;36m",
    Severity.OK: "\033[1;32m",
}
_BLUE, _BOLD, _RESET = "\033[1;34m", "\033[1m", "\033[0m"


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
        """Return the fault as plain JSON values. What is not UTF-8 in the name of a file is escaped."""
        values = {**asdict(self), "path": str(self.path), "severity": str(self.severity)}
        return {
            name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
            for name, value in values.items()
        }


#: What stands before the user name in a URL, which may be malformed.
_BEFORE_USER = re.compile(r":(?=\S)(?://)?")
#: The code of a file that was not read. No line of it is shown, because it may be a link to any other file.
NOT_READ = "R001"
#: Most of a source file that is read to show a line of it, in bytes.
MAX_READ = 4 * 1024 * 1024
#: Most terminal cells of a source line that are shown; a longer one is cut around the fault.
MAX_SHOWN = 120
#: Cells shown before the fault in a line that is cut.
_BEFORE = 40


def _cells(text: str) -> int:
    """Count the terminal cells of `text`: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def _printable(text: str) -> str:
    """Return the text with each character replaced that moves the cursor or colours the screen."""
    return "".join(" " if c == "\t" else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _without_credentials(line: str) -> str:
    """Return a source line with a star for each character of a URL's user name, password and secret options.

    A password may hold any character, so the last `@` of the line ends it. The URL may lack its slashes.
    """
    line = mask_options(line)
    begin, end = _BEFORE_USER.search(line), line.rfind("@")
    if begin is None or begin.end() >= end:
        return line
    return f"{line[: begin.end()]}{re.sub(r'[^ ]', '*', line[begin.end() : end])}{line[end:]}"


class SourceText:
    """The text of a file, of which lines are shown. Each line is split off, masked and escaped once."""

    def __init__(self, text: str | None) -> None:
        self._lines = split_lines(text) if text is not None else []
        self._shown: dict[int, str] = {}

    def line(self, number: int) -> str | None:
        """Return a line as it is shown, counted from 1, None if there is none."""
        if not 1 <= number <= len(self._lines):
            return None
        if number not in self._shown:
            self._shown[number] = _printable(_without_credentials(self._lines[number - 1]))
        return self._shown[number]


def _excerpt(text: str, column: int, width: int) -> tuple[str, int, int]:
    """Return what is shown of a line, and the cells before and under the carets."""
    start = column - 1
    # Combining characters take no cell, so a line of more characters may fit.
    if len(text) <= 4 * MAX_SHOWN and _cells(text) <= MAX_SHOWN:
        return text, _cells(text[:start]), max(1, _cells(text[start : start + width]))
    first = max(0, start - _BEFORE)
    shown = text[first : first + MAX_SHOWN]
    before = "…" if first else ""
    after = "…" if first + MAX_SHOWN < len(text) else ""
    inside = text[start : min(start + width, first + MAX_SHOWN)]
    return f"{before}{shown}{after}", _cells(before + text[first:start]), max(1, _cells(inside))


def render_text(diagnostic: Diagnostic, source: SourceText, *, color: bool = False) -> str:
    """Render one fault in the style of rustc; `source` is the text of the file.

    Colour only adds: the text says the same without it.
    """
    d = diagnostic
    blue, tint, reset = (_BLUE, _TINTS[d.severity], _RESET) if color else ("", "", "")
    out = [render_headline(d.severity, d.code, d.message, color=color)]
    gutter = " " * len(str(d.line))
    out.append(f"{gutter}{blue}-->{reset} {_printable(str(d.path))}:{d.line}:{d.column}")
    if (line := source.line(d.line)) is not None:
        text, before, under = _excerpt(line, d.column, d.width)
        label = f" {_printable(d.label)}" if d.label else ""
        out.append(f"{gutter} {blue}|{reset}")
        out.append(f"{blue}{d.line} |{reset} {text}")
        out.append(f"{gutter} {blue}|{reset} {' ' * before}{tint}{'^' * under}{label}{reset}")
    if d.hint:
        out += ["", render_hint(d.hint, color=color)]
    return "\n".join(out) + "\n"


def render_headline(severity: Severity, code: str, message: str, *, color: bool = False) -> str:
    """Render the line that stands on its own, as `warning[W101]: the message`."""
    tint, bold, reset = (_TINTS[severity], _BOLD, _RESET) if color else ("", "", "")
    return f"{tint}{severity}[{code}]{reset}{bold}: {_printable(message)}{reset}"


def render_hint(hint: str, *, color: bool = False) -> str:
    """Render the line that says how to fix a fault."""
    blue, reset = (_BLUE, _RESET) if color else ("", "")
    return f"{blue}hint{reset}: {_printable(hint)}"


def render_counts(severities: Iterable[Severity]) -> str:
    """Return how many errors and warnings there are, as `1 error, 2 warnings`, empty for none."""
    counts = Counter(severities)
    return ", ".join(
        counted(n, severity) for severity in (Severity.ERROR, Severity.WARNING) if (n := counts[severity])
    )


def render_github(diagnostic: Diagnostic) -> str:
    """Render one fault as a GitHub Actions workflow command."""
    d = diagnostic
    text = _escaped(f"{d.message}. hint: {d.hint}" if d.hint else d.message)
    path = _escaped(str(d.path)).replace(":", "%3A").replace(",", "%2C")
    place = f"file={path},line={d.line},col={d.column},endColumn={d.column + d.width}"
    return f"::{d.severity} {place},title={d.code}::{text}"


def _escaped(text: str) -> str:
    """Return text for a workflow command: line breaks are encoded, other control characters replaced."""
    return "%0A".join(_printable(line).replace("%", "%25") for line in text.split("\n"))


def _text_of(path: Path) -> str | None:
    try:
        if not path.is_file():  # reading a pipe would block
            return None
        with path.open("rb") as file:
            return file.read(MAX_READ).decode("utf-8-sig", "replace")
    except OSError:
        return None


def render_all(
    diagnostics: Iterable[Diagnostic],
    *,
    color: bool = False,
    read: Callable[[Path], str | None] = _text_of,
) -> str:
    """Render many faults as text, with a count at the end. Each source file is read once, by `read`."""
    sources: dict[Path, SourceText] = {}
    found: Sequence[Diagnostic] = sorted(diagnostics)
    blocks = []
    for diagnostic in found:
        if diagnostic.path not in sources:
            sources[diagnostic.path] = SourceText(read(diagnostic.path))
        source = sources[diagnostic.path] if diagnostic.code != NOT_READ else SourceText(None)
        blocks.append(render_text(diagnostic, source, color=color))
    return "\n".join([*blocks, render_counts(d.severity for d in found)]) if blocks else ""
