"""`abe-router history`: the edits that running routers were offered, and their files."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click

from abe_router.backend import Backend
from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import CONFIG, OK, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_data, print_json, print_message, print_table
from abe_router.operations import history
from abe_router.operations.history import Edit, EditContents
from abe_router.routing.table import RouteTable
from abe_router.text import counted, format_time, printable, shortened

T = TypeVar("T")

#: Longest list of changes, and longest fault in the table, in characters.
LONGEST = 80


@as_command(
    "history",
    """
    abe-router history
    abe-router history 41 > old.yaml && mv old.yaml routes.yaml
    abe-router history 41 --diff 39
    """,
)
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(min=1))
@option("--diff", "base", metavar="M", type=click.IntRange(min=1), help="Show what changed from edit M to N.")
@option("--file", "name", metavar="PATH", help="Print this file of edit N, and not the routes file.")
@backend_options
@json_option
def command(
    number: int | None,
    base: int | None,
    name: str | None,
    routes: Path,
    backend: str | None,
    prefix: str | None,
    json: bool,
) -> int:
    """Show the edits of the routes file, newest first, or the files of one of them.

    Running workers record each edit that they are offered, accepted or rejected: what changed, who and why as
    far as it can be known, and the files before variables are replaced. Credentials that the file spells out
    are replaced by ***. The last 50 edits are kept, and those in force.

    With N, the routes file of that edit is printed, so that it can be put back. Redirect it to another file
    and rename that: a shell empties the file that it redirects to, before the backend is read from it.
    """
    _require_other_output(routes)
    if number is None and (base is not None or name is not None):
        raise click.UsageError("--diff and --file need the number of an edit")
    table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)
    if number is None:
        return _list(_on_backend(table, prefix, history.read_history), json)
    if base is not None:
        difference = _on_backend(table, prefix, lambda found: history.diff_edits(found, number, base))
        if json:
            print_json(difference)
        elif difference:
            print_data("\n".join(map(printable, difference)))
        else:
            print_message(f"edit {number} has the files of edit {base}")
        return OK
    contents = _on_backend(table, prefix, lambda found: history.read_contents(found, number))
    return _print_contents(contents, name, json)


def _require_other_output(routes: Path) -> None:
    """Raise CommandError if the shell redirects the output to the routes file, and has emptied it."""
    with suppress(OSError, ValueError):
        status = routes.stat()
        if not status.st_size and os.path.samestat(status, os.fstat(sys.stdout.fileno())):
            raise CommandError(
                f"the shell has emptied {routes}, so the backend cannot be read from it",
                hint="name the --backend, redirect the output to another file, and rename that",
                code=CONFIG,
            )


def _list(edits: Sequence[Edit], json: bool) -> int:
    if json:
        print_json(edits)
    elif edits:
        headings = ("edit", "time", "state", "revision", "change", "by", "why")
        print_table(headings, map(_row, edits), right={"edit"})
    else:
        print_message("no edit is recorded: running workers record each edit of the file")
    return OK


def _row(edit: Edit) -> tuple[str, ...]:
    record = edit.record
    running = f", run by {counted(edit.running, 'worker')}" if edit.running else ""
    return (
        str(record.number),
        format_time(record.offered_at),
        record.state + running,
        record.revision[:12],
        shortened(record.change, LONGEST),
        edit.by,
        edit.why,
    )


def _print_contents(contents: EditContents, name: str | None, json: bool) -> int:
    if json:
        print_json(contents)
        return OK
    name = name or contents.routes
    others = [other for other in contents.files if other != name]
    if name not in contents.files:
        raise CommandError(f"edit {contents.number} has no file `{name}`", hint=f"it has {', '.join(others)}")
    text = contents.files[name]
    if sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    click.echo(text, nl=not text.endswith("\n"))
    if others:
        print_message(printable(f"other files, for --file: {', '.join(others)}"))
    if contents.masked and name == contents.routes:
        print_message("warning: credentials are not stored: put them back in place of ***")
    return OK


def _on_backend(table: RouteTable, prefix: str | None, act: Callable[[Backend], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with open_backend(table, prefix=prefix, only_read=True) as found:
            return await act(found)

    return asyncio.run(inside())
