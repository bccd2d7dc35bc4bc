"""`abe-router top`: what all routes do now, on the whole terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import click

from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import OK, USAGE, CommandError
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_json, print_message, print_table, wants_color
from abe_router.cli.screen import Screen
from abe_router.cli.top_frame import NARROWEST, View, frame, plain_rows, pressed
from abe_router.errors import BackendError
from abe_router.operations.top import Load, LoadReader
from abe_router.routing.table import RouteTable

#: The time between the two readings of `--once`, in seconds: rates need two.
_ONCE = 1.0


@as_command(
    "top",
    """
    abe-router top
    abe-router top --backend redis://localhost/0 --every 5
    abe-router top --once --json
    """,
)
@backend_options
@json_option
@option("--once", is_flag=True, help="Print one table and exit, as without a terminal.")
@option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=1.0,
    metavar="SECONDS",
    help="Time between two readings.",
)
def command(
    routes: Path, backend: str | None, prefix: str | None, json: bool, once: bool, every: float
) -> int:
    """Show what all routes do now: rates, backlog, durations, failures.

    Rates and durations come from the reports of the workers, which they send every few seconds. Counts come
    from the backend. It shows routes of all hosts, and needs neither HTTP nor a worker on this host.

    Keys: 1-9 sort, / filters, ? shows all keys and columns, q quits.
    """
    table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)
    if once or json or not Screen.available():
        load = asyncio.run(_read_once(table, prefix))
        if json:
            print_json(load)
        elif load.routes:
            headings, rows = plain_rows(load, time.time())
            print_table(("route", *headings), rows, right=headings)
        else:
            print_message("the backend has no routes")
        return OK
    columns = Screen().size.columns
    if columns < NARROWEST:
        hint = "make it wider, or use `--once`"
        raise CommandError(
            f"top needs {NARROWEST} columns, this terminal has {columns}", hint=hint, code=USAGE
        )
    return asyncio.run(_Top(table, prefix, every).run())


async def _read_once(table: RouteTable, prefix: str | None) -> Load:
    async with open_backend(table, prefix=prefix, only_read=True) as backend:
        reader = LoadReader(table, backend)
        await reader.read()
        await asyncio.sleep(_ONCE)
        return await reader.read()


class _Top:
    """Draws frames until a key or a signal ends it: after each reading, each key and each change of size."""

    def __init__(self, table: RouteTable, prefix: str | None, every: float) -> None:
        self._table, self._prefix, self._every = table, prefix, every
        self._view, self._load, self._error = View(), None, ""
        self._color = wants_color(sys.stdout)
        self._ended = asyncio.Event()
        self._code = OK
        self._screen = Screen()

    _load: Load | None

    async def run(self) -> int:
        """Run until it is ended; return the exit code."""
        loop = asyncio.get_running_loop()
        async with open_backend(self._table, prefix=self._prefix, only_read=True) as backend:
            reader = LoadReader(self._table, backend)
            with self._screen:
                loop.add_reader(self._screen.fileno, self._on_keys)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    loop.add_signal_handler(number, self._end, 128 + number)
                loop.add_signal_handler(signal.SIGWINCH, self._draw)
                loop.add_signal_handler(signal.SIGTSTP, self._suspend)
                reading = asyncio.create_task(self._read(reader))
                ended = asyncio.create_task(self._ended.wait())
                try:
                    await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if reading.done():
                        reading.result()  # it ends by an error alone
                finally:
                    loop.remove_reader(self._screen.fileno)
                    reading.cancel()
                    ended.cancel()
        return self._code

    async def _read(self, reader: LoadReader) -> None:
        self._draw()
        while True:
            try:
                self._load, self._error = await reader.read(), ""
            except BackendError as error:
                self._error = str(error)
            self._draw()
            await asyncio.sleep(self._every)

    def _draw(self) -> None:
        columns, lines = self._screen.size
        shown = frame(
            self._load, self._view, columns=columns, lines=lines, color=self._color, error=self._error
        )
        self._screen.draw(shown)

    def _on_keys(self) -> None:
        keys = self._screen.read_keys()
        if keys is None:
            self._end(128 + signal.SIGHUP)
            return
        for key in keys:
            view = pressed(self._view, key, max(1, self._screen.size.lines - 5))
            if view is None:
                self._end(OK)
                return
            self._view = view
        self._draw()

    def _suspend(self) -> None:
        self._screen.suspend()
        self._draw()

    def _end(self, code: int) -> None:
        self._code = code
        self._ended.set()
