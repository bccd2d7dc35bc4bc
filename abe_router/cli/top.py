"""`abe-router top`: what all routes do now, on the whole terminal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from abe_router.cli.access import open_backend, read_table_in_force
from abe_router.cli.errors import OK
from abe_router.cli.examples import as_command
from abe_router.cli.options import backend_options, json_option, option
from abe_router.cli.output import print_json, print_message, print_table, wants_color
from abe_router.errors import BackendError
from abe_router.operations.top import Load, LoadReader, RouteLoad
from abe_router.routing.table import RouteTable
from abe_router.text import counted, format_age, printable, shortened

#: The time between the two readings of `--once`, in seconds: rates need two.
_ONCE = 1.0
#: The lines around the routes, and the narrowest and the widest column of routes.
_AROUND, _NARROWEST_ROUTE, _WIDEST_ROUTE = 5, 16, 60


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

    Keys: 1-9 sort by a column, and again in reverse; q quits.
    """
    table, _ = read_table_in_force(routes, backend=backend, prefix=prefix)
    if once or json or not _has_terminal():
        load = asyncio.run(_read_once(table, prefix))
        if json:
            print_json(load)
        elif load.routes:
            headings = [column.heading for column in _COLUMNS]
            rows = [
                (route.route, *(_cell(column, route, time.time()) for column in _COLUMNS))
                for route in load.routes
            ]
            print_table(("route", *headings), rows, right=headings)
        else:
            print_message("the backend has no routes")
        return OK
    return asyncio.run(_Top(table, prefix, every).run())


def _has_terminal() -> bool:
    """Return whether both stdin and stdout are a terminal that understands escape codes."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")


async def _read_once(table: RouteTable, prefix: str | None) -> Load:
    async with open_backend(table, prefix=prefix, only_read=True) as backend:
        reader = LoadReader(table, backend)
        await reader.read()
        await asyncio.sleep(_ONCE)
        return await reader.read()


class _Top:
    """Draws until a key or a signal ends it: after each reading, each key and each change of size."""

    def __init__(self, table: RouteTable, prefix: str | None, every: float) -> None:
        self._table, self._prefix, self._every = table, prefix, every
        self._sort, self._reverse = "1", False
        self._load: Load | None = None
        self._error = ""
        self._ended = asyncio.Event()
        self._code = OK

    async def run(self) -> int:
        """Run until it is ended; return the exit code."""
        loop = asyncio.get_running_loop()
        console = Console(no_color=not wants_color(sys.stdout), highlight=False)
        async with open_backend(self._table, prefix=self._prefix, only_read=True) as backend:
            reader = LoadReader(self._table, backend)
            live = Live(console=console, screen=True, auto_refresh=False, get_renderable=self._shown)
            with _keys_one_by_one(), live:
                loop.add_reader(sys.stdin, self._on_keys, live.refresh)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    loop.add_signal_handler(number, self._end, 128 + number)
                loop.add_signal_handler(signal.SIGWINCH, live.refresh)
                reading = asyncio.create_task(self._read(reader, live.refresh))
                ended = asyncio.create_task(self._ended.wait())
                try:
                    await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if reading.done():
                        reading.result()  # it ends by an error alone
                finally:
                    loop.remove_reader(sys.stdin)
                    reading.cancel()
                    ended.cancel()
        return self._code

    async def _read(self, reader: LoadReader, refresh: Callable[[], None]) -> None:
        while True:
            try:
                self._load, self._error = await reader.read(), ""
            except BackendError as error:
                self._error = str(error)
            refresh()
            await asyncio.sleep(self._every)

    def _on_keys(self, refresh: Callable[[], None]) -> None:
        try:
            keys = os.read(sys.stdin.fileno(), 1024).decode(errors="replace")
        except OSError:
            keys = ""
        if not keys:  # the terminal is gone
            self._end(128 + signal.SIGHUP)
        for key in keys:
            if key == "q":
                self._end(OK)
            elif key == "1" or key in _BY_KEY:
                self._reverse = not self._reverse if key == self._sort else False
                self._sort = key
        refresh()

    def _end(self, code: int) -> None:
        self._code = code
        self._ended.set()

    def _shown(self) -> RenderableType:
        columns, lines = os.get_terminal_size()
        return shown(
            self._load, self._sort, reverse=self._reverse, error=self._error, columns=columns, lines=lines
        )


@contextmanager
def _keys_one_by_one() -> Iterator[None]:
    """Let keys arrive without Enter and unseen.

    Ctrl-C stays a signal. Ctrl-Z would stop the process before the screen is restored, so it does nothing.
    """
    import termios
    import tty

    saved = termios.tcgetattr(sys.stdin)
    stops = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    tty.setcbreak(sys.stdin, termios.TCSANOW)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, saved)
        signal.signal(signal.SIGTSTP, stops)


class _Column(NamedTuple):
    """A column of numbers. `key` is the digit that sorts by it, if there is one."""

    heading: str
    width: int
    key: str
    value: Callable[[RouteLoad, float], float | None]
    show: Callable[[float], str]
    style: str = ""


def _compact(number: float) -> str:
    """Return a number in at most five characters."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (float("inf"), 1e9, "G")):
        if number < limit * 0.9995:
            scaled = number / divisor
            digits = 1 if scaled < 99.95 and (unit or (number % 1 and number < 9.95)) else 0
            return f"{scaled:.{digits}f}{unit}"
    raise AssertionError(number)


def _seconds(number: float) -> str:
    """Return a duration in at most five characters."""
    if number < 0.00095:
        return f"{number * 1e6:.0f}us"
    if number < 0.9995:
        return f"{number * 1e3:.{0 if number > 0.00995 else 1}f}ms"
    return f"{number:.{0 if number > 9.95 else 1}f}s" if number < 99.5 else format_age(number)


def _age(route: RouteLoad, now: float) -> float | None:
    """Return the age of the oldest message that is ready, in seconds."""
    return None if route.oldest_at is None else max(0.0, now - route.oldest_at)


_COLUMNS = (
    _Column("in/s", 5, "2", lambda route, _: route.accepted, _compact),
    _Column("done/s", 6, "3", lambda route, _: route.handled, _compact),
    _Column("wait", 5, "4", lambda route, _: route.waiting, _compact),
    _Column("oldest", 6, "5", _age, format_age),
    _Column("run", 4, "6", lambda route, _: route.in_flight, _compact),
    _Column("p50", 5, "", lambda route, _: route.p50, _seconds),
    _Column("p99", 5, "7", lambda route, _: route.p99, _seconds),
    _Column("retr/s", 6, "", lambda route, _: route.retried, _compact, "yellow"),
    _Column("dead", 5, "8", lambda route, _: route.dead, _compact, "red"),
    _Column("err/s", 5, "9", lambda route, _: route.failed, _compact, "yellow"),
)
_FIXED = sum(column.width + 1 for column in _COLUMNS)
_BY_KEY = {column.key: column for column in _COLUMNS if column.key}


def shown(
    load: Load | None, sort: str, *, reverse: bool, error: str, columns: int, lines: int
) -> RenderableType:
    """Return what a screen of this size shows. `error` says why the last reading failed."""
    now = time.time()
    routes = _ordered(load.routes if load else (), sort, now, reverse=reverse)
    room = max(1, lines - _AROUND)
    width = max(_NARROWEST_ROUTE, min(columns - _FIXED, _WIDEST_ROUTE))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(Text("route", "reverse" if sort == "1" else ""), min_width=width, no_wrap=True)
    for column in _COLUMNS:
        style = "reverse" if column.key and column.key == sort else ""
        heading = Text(column.heading, style)
        table.add_column(heading, min_width=column.width, justify="right", no_wrap=True)
    for route in routes[:room]:
        is_idle = route.paused or route.in_file is False
        cells = [Text(_shortened(printable(route.route), width), "dim" if is_idle else "")]
        for column in _COLUMNS:
            failed = column.style and (column.value(route, now) or 0) > 0
            cells.append(Text(_cell(column, route, now), column.style if failed else ""))
        table.add_row(*cells)
    left = f", {len(routes) - room:,} more below" if len(routes) > room else ""
    title = Text(_title(load, now, error), "bold red" if error else "bold", no_wrap=True, overflow="ellipsis")
    overrides = Text(_overrides(load) if load else "", no_wrap=True, overflow="ellipsis")
    return Group(
        title, overrides, table, "", Text(f"q quit  1-9 sort  {counted(len(routes), 'route')}{left}")
    )


def _title(load: Load | None, now: float, error: str) -> str:
    if load is None:
        return f"abe-router top: {printable(error) or 'reading'}"
    if error:
        return f"{printable(error)} (numbers are {format_age(now - load.at)} old)"
    workers = counted(load.workers, "worker")
    if load.disconnected:
        workers += f", {load.disconnected} cannot reach the backend"
    clock = time.strftime("%H:%M:%S", time.localtime(load.at))
    return f"{clock}  {workers}  {_compact(load.handled)} handled/s  {load.backend}"


def _overrides(load: Load) -> str:
    """Return the first override in force, and how many others there are."""
    said = [f"{printable(r.route)} {override.describe()}" for r in load.routes for override in r.overrides]
    return f"{len(said) - 1:,} more, and {said[0]}" if len(said) > 1 else "".join(said)


def _ordered(routes: Sequence[RouteLoad], sort: str, now: float, *, reverse: bool) -> Sequence[RouteLoad]:
    """Return the routes by name, or by a number, the largest first; those without a number are last."""
    if sort == "1":
        return sorted(routes, key=lambda route: route.route, reverse=reverse)
    value = _BY_KEY[sort].value
    sign = 1 if reverse else -1

    def key(route: RouteLoad) -> tuple[bool, float, str]:
        number = value(route, now)
        return number is None, sign * (number or 0.0), route.route

    return sorted(routes, key=key)


def _cell(column: _Column, route: RouteLoad, now: float) -> str:
    number = column.value(route, now)
    if number is None:
        return "-"
    return "paused" if route.paused and column.heading == "done/s" else column.show(number)


def _shortened(route: str, limit: int) -> str:
    """Return a route that fits. Of one that is too long, the group remains, for many routes share a key."""
    key, _, group = route.rpartition("/")
    room = limit - len(group) - 1
    return f"{shortened(key, room)}/{group}" if room > 4 and len(route) > limit else shortened(route, limit)
