"""Reports a YAML syntax error: the position, the usual reason, and what in detail."""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

import yaml

from abe_router.config.reading.code import Code
from abe_router.config.reading.composer import MAX_DEPTH, TOO_DEEP
from abe_router.config.reading.faults import MAX_FAULTS, Faults, Span
from abe_router.text import counted, foreign_detail, split_lines

#: A name and its value, with a colon or spaces between them, but not both.
_UNSPACED = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)(?::| +)([^\s:#][^#]*?)\s*(?:#.*)?")
_TAB = re.compile(r" *\t(?=\s*\S)")
#: A name with a value behind it, which is no begin of a block.
_VALUED = re.compile(r"[^\s#\[{|>&!][^\[{#]*?:\s+[^\s#|>&!\[{]")
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
    begun = error.context_mark.line if error.context_mark is not None else line
    reason = _tab(lines, begun, line) or _without_colon(error, lines)
    if reason is None and mark is not None and not _open_brackets(text[: mark.index]):
        reason = _misindented(lines, line)
    if reason is not None:
        message, line, column, hint = reason
        faults.add(
            Code.SYNTAX, f"YAML: {message}", Span(line + 1, column + 1, len(lines[line].strip())), hint=hint
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
    return _open_brackets(text) > MAX_DEPTH


def _open_brackets(text: str) -> int:
    return sum(map(text.count, "[{")) - sum(map(text.count, "]}"))


class _Reason(NamedTuple):
    """The usual reason of an error: what is wrong, the line and column (both from 0), and a hint."""

    message: str
    line: int
    column: int
    hint: str


def _tab(lines: list[str], begin: int, end: int) -> _Reason | None:
    """Return the first line that a tab indents. The parser may read it as part of the value above it."""
    for line, content in enumerate(lines[begin : end + 1], begin):
        if (found := _TAB.match(content)) is not None:
            message = "a tab indents this line"
            return _Reason(message, line, found.end() - 1, "indent YAML with spaces, not tabs")
    return None


def _misindented(lines: list[str], line: int) -> _Reason | None:
    """Return a line that is indented like no line above it, or deeper than a line that has a value."""
    levels: list[tuple[int, int]] = []  # the indentations that are open above, and the line of each
    for number, content in enumerate(lines[: line + 1]):
        bare = content.lstrip(" ")
        indent = len(content) - len(bare)
        if not bare or bare.startswith("#"):
            continue
        if number == line:
            break
        while levels and levels[-1][0] >= indent:
            levels.pop()
        levels.append((indent, number))
        while bare.startswith("- "):
            bare = bare[2:].lstrip(" ")
            levels.append((len(content) - len(bare), number))
    if not levels or any(indent == level for level, _ in levels):
        return None
    deepest, above = levels[-1]
    if indent > deepest and _VALUED.match(lines[above][deepest:]):
        hint = f"indent it by {_spaces(deepest)}, as line {above + 1}, or remove the value there"
        return _Reason(f"a member below line {above + 1}, which has a value", line, indent, hint)
    if indent > deepest:
        return None
    if indent < levels[0][0]:
        return _Reason(
            "the first line is indented, and a later one is not", levels[0][1], 0, "begin it at the left"
        )
    near = [next(each for each in reversed(levels) if each[0] < indent)]
    near.append(next(each for each in levels if each[0] > indent))
    hint = "indent it by " + ", or by ".join(f"{_spaces(level)}, as line {n + 1}" for level, n in near)
    return _Reason("this line is indented like no line above it", line, indent, hint)


def _spaces(number: int) -> str:
    return counted(number, "space")


def _without_colon(error: yaml.MarkedYAMLError, lines: list[str]) -> _Reason | None:
    """Return a member that has no colon, or no space after it. The parser notices it on the line below."""
    if error.context_mark is None:
        return None
    line, column = error.context_mark.line, error.context_mark.column
    member = _UNSPACED.fullmatch(lines[line][column:]) if line < len(lines) else None
    if member is None:
        return None
    hint = f"write a colon and a space after the name: `{member[1]}: {member[2]}`"
    return _Reason("no colon with a space after this name", line, column, hint)


def _hint(content: str, column: int) -> str:
    start = content.strip()
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
