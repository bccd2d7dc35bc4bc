"""The frame that `top` shows, and what keys change in it. Values and functions without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from abe_router.cli.table import width
from abe_router.operations.top import Load, RouteLoad
from abe_router.text import counted, format_age, printable, shortened

#: The narrowest terminal, in columns.
NARROWEST = 80
#: The lines around the routes, and the narrowest and the widest column of routes.
_AROUND, _NARROWEST_ROUTE, _WIDEST_ROUTE = 4, 16, 60
_BOLD, _DIM, _RED, _YELLOW, _REVERSE, _PLAIN = (
    "\033[1m",
    "\033[2m",
    "\033[31m",
    "\033[33m",
    "\033[7m",
    "\033[0m",
)


class _Column(NamedTuple):
    """A column of numbers. `key` is the digit that sorts by it, if there is one."""

    heading: str
    width: int
    key: str
    said: str
    value: Callable[[RouteLoad, float], float | None]
    show: Callable[[float], str]


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


_COLUMNS = (
    _Column("in/s", 5, "2", "new messages a second", lambda r, _: r.accepted, _compact),
    _Column("done/s", 6, "3", "handled messages a second", lambda r, _: r.handled, _compact),
    _Column(
        "wait", 5, "4", "messages that wait, ready or delayed for a retry", lambda r, _: r.waiting, _compact
    ),
    _Column(
        "oldest",
        6,
        "5",
        "age of the oldest message that is ready",
        lambda r, now: None if r.oldest_at is None else max(0.0, now - r.oldest_at),
        format_age,
    ),
    _Column("run", 4, "6", "messages in flight: fetched and not settled", lambda r, _: r.in_flight, _compact),
    _Column("p50", 5, "", "half of the calls of the handler take no longer", lambda r, _: r.p50, _seconds),
    _Column("p99", 5, "7", "99 % of the calls of the handler take no longer", lambda r, _: r.p99, _seconds),
    _Column(
        "retr/s", 6, "", "failed attempts a second that are tried again", lambda r, _: r.retried, _compact
    ),
    _Column("dead", 5, "8", "dead letters", lambda r, _: r.dead, _compact),
    _Column("err/s", 5, "9", "failed attempts a second", lambda r, _: r.failed, _compact),
)
_FIXED = sum(column.width + 1 for column in _COLUMNS)
_BY_KEY = {column.key: column for column in _COLUMNS if column.key}


@dataclass(frozen=True)
class View:
    """What the user has chosen. States: the table, the help, and the input of a filter (`typing`)."""

    sort: str = "1"
    descending: bool = False
    filter: str = ""
    typing: bool = False
    help: bool = False
    scroll: int = 0


def pressed(view: View, key: str, page: int) -> View | None:
    """Return the view after a key, None to quit. `page` is the number of routes that are shown."""
    if view.typing:
        return _typed(view, key)
    if view.help:
        return None if key == "q" else replace(view, help=False)
    match key:
        case "q":
            return None
        case "?" | "h":
            return replace(view, help=True)
        case "/":
            return replace(view, typing=True, scroll=0)
        case "escape":
            return replace(view, filter="", scroll=0)
        case "down" | "j":
            return replace(view, scroll=view.scroll + 1)
        case "up" | "k":
            return replace(view, scroll=max(0, view.scroll - 1))
        case "page down" | " ":
            return replace(view, scroll=view.scroll + page)
        case "page up":
            return replace(view, scroll=max(0, view.scroll - page))
        case "home" | "g":
            return replace(view, scroll=0)
        case "end" | "G":
            return replace(view, scroll=1_000_000)
        case _ if key == "1" or key in _BY_KEY:
            descending = not view.descending if key == view.sort else key != "1"
            return replace(view, sort=key, descending=descending, scroll=0)
    return view


def _typed(view: View, key: str) -> View:
    match key:
        case "enter":
            return replace(view, typing=False)
        case "escape":
            return replace(view, typing=False, filter="")
        case "backspace":
            return replace(view, filter=view.filter[:-1])
        case _ if len(key) == 1 and key.isprintable():
            return replace(view, filter=view.filter + key)
    return view


def frame(
    load: Load | None,
    view: View,
    *,
    columns: int,
    lines: int,
    color: bool,
    error: str = "",
    now: float | None = None,
) -> list[str]:
    """Return the lines of a screen. `error` says why the last reading failed."""
    now = time.time() if now is None else now
    paint = _painted if color else _unpainted
    if columns < NARROWEST:
        return [_cut(f"top needs {NARROWEST} columns, and has {columns}", columns)]
    if view.help:
        return [_cut(line, columns) for line in _help()][:lines]
    title = _title(load, now, error)
    shown = [paint(_cut(title, columns), _RED if error else _BOLD), ""]
    if view.typing or view.filter:
        shown[1] = _cut(f"filter: {printable(view.filter)}{'_' if view.typing else ''}", columns)
    elif load is not None:
        shown[1] = _cut(_overrides(load), columns)
    routes = _ordered(_filtered(load.routes if load else (), view.filter), view, now)
    room = max(1, lines - _AROUND)
    first = max(0, min(view.scroll, len(routes) - room))
    visible = routes[first : first + room]
    route_width = min(
        columns - _FIXED,
        _WIDEST_ROUTE,
        max([_NARROWEST_ROUTE, *(width(printable(r.route)) for r in visible)]),
    )
    shown.append(_headings(view, route_width, paint))
    shown += [_row(route, route_width, now, paint) for route in visible]
    shown += [""] * (lines - 1 - len(shown))
    shown.append(_cut(_footer(len(routes), first, len(visible)), columns))
    return shown[:lines]


def plain_rows(load: Load, now: float) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return the headings and the rows of a table of all routes."""
    rows = [(route.route, *(_cell(column, route, now) for column in _COLUMNS)) for route in load.routes]
    return tuple(column.heading for column in _COLUMNS), rows


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


def _filtered(routes: Sequence[RouteLoad], text: str) -> Sequence[RouteLoad]:
    return [route for route in routes if text.lower() in route.route.lower()]


def _ordered(routes: Sequence[RouteLoad], view: View, now: float) -> Sequence[RouteLoad]:
    """Return the routes in the order of the view; those without a number are last."""
    if view.sort == "1":
        return sorted(routes, key=lambda route: route.route, reverse=view.descending)
    value = _BY_KEY[view.sort].value
    sign = -1 if view.descending else 1

    def key(route: RouteLoad) -> tuple[bool, float, str]:
        number = value(route, now)
        return number is None, sign * (number or 0.0), route.route

    return sorted(routes, key=key)


def _headings(view: View, route_width: int, paint: Callable[[str, str], str]) -> str:
    cells = [("1", f"{'route':<{route_width}}"), *((c.key, f"{c.heading:>{c.width}}") for c in _COLUMNS)]
    return " ".join(paint(text, _REVERSE if key == view.sort else _BOLD) for key, text in cells)


def _row(route: RouteLoad, route_width: int, now: float, paint: Callable[[str, str], str]) -> str:
    name = _shortened(printable(route.route), route_width)
    idle = route.paused or route.in_file is False
    cells = [paint(name + " " * (route_width - width(name)), _DIM if idle else _PLAIN)]
    for column in _COLUMNS:
        text = f"{_cell(column, route, now):>{column.width}}"
        style = {"dead": _RED, "err/s": _YELLOW, "retr/s": _YELLOW}.get(column.heading)
        cells.append(paint(text, style) if style and (column.value(route, now) or 0) > 0 else text)
    return " ".join(cells)


def _cell(column: _Column, route: RouteLoad, now: float) -> str:
    number = column.value(route, now)
    if number is None:
        return "-"
    return "paused" if route.paused and column.heading == "done/s" else column.show(number)


def _footer(total: int, first: int, count: int) -> str:
    where = f"{first + 1}-{first + count} of {total:,}" if count < total else counted(total, "route")
    return f"q quit  1-9 sort  / filter  ? help  {where}"


def _help() -> Sequence[str]:
    return [
        "abe-router top",
        "",
        "1        sort by route; the same key again reverses the order",
        *(f"{c.key:<8} {c.heading:<8} {c.said}" for c in _COLUMNS if c.key),
        *(f"{c.key:<8} {c.heading:<8} {c.said}" for c in _COLUMNS if not c.key),
        "",
        "/        show only routes that contain a text; Enter keeps it, Esc ends it",
        "j k      scroll, as the arrow keys, Page Up, Page Down, g and G do",
        "q        quit",
        "",
        "Rates are those of the last seconds, as the workers report them. Any key closes this help.",
    ]


def _shortened(route: str, limit: int) -> str:
    """Return a route that fits. Of one that is too long, the group remains, for many routes share a key."""
    key, _, group = route.rpartition("/")
    room = limit - len(group) - 1
    return f"{shortened(key, room)}/{group}" if room > 4 and len(route) > limit else shortened(route, limit)


def _cut(text: str, limit: int) -> str:
    return text if width(text) <= limit else text[:limit]


def _painted(text: str, style: str) -> str:
    return text if style == _PLAIN else f"{style}{text}{_PLAIN}"


def _unpainted(text: str, style: str) -> str:  # noqa: ARG001  it has the form of `_painted`
    return text
