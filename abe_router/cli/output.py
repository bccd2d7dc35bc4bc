"""The two streams: data on stdout, messages on stderr; tables and JSON; when to colour."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TextIO

import click

from abe_router.cli.table import table_lines
from abe_router.text import printable


def wants_color(stream: TextIO) -> bool:
    """Say whether to colour what goes to `stream`: https://no-color.org and https://force-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_message(text: str) -> None:
    """Write a message for the user to stderr."""
    click.echo(text, err=True, color=True)


def print_data(text: str) -> None:
    """Write data to stdout."""
    click.echo(text, color=True)


def print_json(value: Any) -> None:
    """Write data to stdout as indented JSON; numbers stay exact, unprintable characters are escaped."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    print_data("\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n")))


def _escaped(line: str) -> str:
    """Return a line of JSON with JSON escapes for unprintable characters, which only strings can hold."""
    units = (c if c.isprintable() else c.encode("utf-16-be").hex(" ", 2).split() for c in line)
    return "".join(c if isinstance(c, str) else "".join(f"\\u{unit}" for unit in c) for c in units)


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()
) -> None:
    """Write rows under headings to stdout; the columns named in `right` are aligned to the right.

    On a terminal, cells that are too wide are folded. Elsewhere a row is always one line.
    """
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    printed = [[printable(cell) for cell in row] for row in rows]
    bold = wants_color(sys.stdout)
    print_data("\n".join(table_lines(headings, printed, right=right, limit=limit, bold=bold)))


def confirm(question: str) -> bool:
    """Ask for a yes on the terminal; without a terminal the answer is no."""
    return sys.stdin.isatty() and click.confirm(question, err=True)
