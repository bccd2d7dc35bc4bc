"""Reports a YAML syntax error: the position, the usual reason, and what in detail."""

from __future__ import annotations

import re
from itertools import islice

import yaml

from abe_router.config.reading.code import Code
from abe_router.config.reading.composer import MAX_DEPTH, TOO_DEEP
from abe_router.config.reading.faults import MAX_FAULTS, Faults, Span
from abe_router.text import foreign_detail, split_lines

#: A name and its value, with a colon or spaces between them, but not both.
_UNSPACED = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)(?::| +)([^\s:#][^#]*?)\s*(?:#.*)?")
_COMMENTED = re.compile(r"^[ ]*(#(?:\.[A-Za-z0-9_:@=+~*#.-]+)?):[ ]*(?:\{.*\}[ ]*)?$", re.MULTILINE)


def syntax_fault(error: yaml.MarkedYAMLError, text: str, faults: Faults) -> None:
    """Add the fault of an error that the parser raised."""
    lines = split_lines(text) or [""]
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark is not None else (0, 0)
    if line >= len(lines) or (line and not lines[line].strip()):
        # At the end of the file, point at the last line that has text.
        line = max((n for n, content in enumerate(lines[: line + 1]) if content.strip()), default=0)
        column = max(0, len(lines[line].rstrip()) - 1)
    if (begun := _without_colon(error, lines)) is not None:
        line, column, hint = begun
        faults.add(
            Code.SYNTAX,
            "YAML: no colon with a space after this name",
            Span(line + 1, column + 1, len(lines[line].strip())),
            hint=hint,
        )
        return
    if mark is not None and _is_too_deep(text[: mark.index]):
        # Newer parsers have a limit of their own. Brackets reach it before the first event.
        faults.add(Code.TOO_LARGE, TOO_DEEP, Span(line + 1, column + 1))
        return
    label = foreign_detail(error.problem) if error.problem else ""
    if error.context_mark is not None and error.context_mark.line < line:
        label = f"in what begins on line {error.context_mark.line + 1} {label}"
    hint = _hint(lines[line], column)
    faults.add(
        Code.SYNTAX,
        "YAML: the file cannot be read from here on",
        Span(line + 1, column + 1),
        label=label,
        hint=hint,
    )


def _is_too_deep(text: str) -> bool:
    """Return whether more brackets are open at the end of a text than levels are allowed."""
    return sum(map(text.count, "[{")) - sum(map(text.count, "]}")) > MAX_DEPTH


def _without_colon(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[int, int, str] | None:
    """Return the line and column of a member that has no colon, or no space after it, with a hint.

    The parser notices it only on the line below.
    """
    if error.context_mark is None:
        return None
    line, column = error.context_mark.line, error.context_mark.column
    member = _UNSPACED.fullmatch(lines[line][column:]) if line < len(lines) else None
    if member is None:
        return None
    return line, column, f"write a colon and a space after the name: `{member[1]}: {member[2]}`"


def _hint(content: str, column: int) -> str:
    start = content.strip()
    if "\t" in content[: column + 1]:
        return "indent YAML with spaces, not tabs"
    if start.startswith("*"):
        return "quote a pattern that begins with `*`: " + f'`"{start.partition(":")[0]}"`'
    if re.search(r"[{,] *#[.:]", content):
        return 'quote a pattern that begins with `#`: `"#.deleted"`'
    if "${" in content and ("[" in content or "{" in content.replace("${", "")):
        return 'quote a variable between brackets: `"${NAME}"`'
    if content[column : column + 1] == ":":
        return "quote a value that contains `: `, and write each member of a mapping on its own line"
    if content[column : column + 1] in {"@", "`", "%"}:
        return "quote a value that begins with this character"
    return ""


def commented_patterns(text: str, faults: Faults) -> None:
    """Warn of lines such as `#.deleted:`, which look like a key but are comments."""
    line, end = 1, 0
    for match in islice(_COMMENTED.finditer(text), MAX_FAULTS):
        line, end = line + text.count("\n", end, match.start(1)), match.start(1)
        column = match.start(1) - text.rfind("\n", 0, match.start(1))
        message = f"`{match[1]}` is a comment here, not a pattern"
        hint = f'the lines below it belong to the previous key; write `"{match[1]}":`'
        faults.add(Code.COMMENTED_PATTERN, message, Span(line, column, len(match[1])), hint=hint)
