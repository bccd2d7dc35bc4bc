"""The two streams: data on stdout, messages on stderr; tables and JSON; when to colour."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TextIO

import click

from abe_router.text import printable

#: Width of a table in columns where there is no terminal, as in a file or a pipe.
_UNLIMITED = 10_000


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    color = wants_color(sys.stdout)
    console = Console(
        width=None if terminal else _UNLIMITED, force_terminal=color, no_color=not color, highlight=False
    )
    with console.capture() as captured:
        console.print(table)
    print_data("\n".join(line.rstrip() for line in captured.get().splitlines()))


def confirm(question: str) -> bool:
    """Ask for a yes on the terminal; without a terminal the answer is no."""
    return sys.stdin.isatty() and click.confirm(question, err=True)
