"""What `top` shows: columns, order, colours."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace
from rich.console import Console

from abe_router.cli.top import _compact, _seconds, shown
from abe_router.operations.top import Load, RouteLoad
from abe_router.runtime.override import Override

BILLING = RouteLoad(
    "orders.created/billing",
    accepted=1_234.5,
    handled=987.6,
    waiting=12_345,
    oldest_at=900.0,
    in_flight=10,
    p50=0.0012,
    p99=1.25,
    retried=0.4,
    dead=3,
    failed=2.0,
    workers=2,
)
AUDIT = RouteLoad("orders.created/audit", accepted=0.0, handled=0.0, waiting=0, in_flight=0, dead=0)
MAIL = RouteLoad("orders.paid.by.invoice/mail", waiting=4, in_flight=0, dead=0, paused=True, in_file=True)
UNKNOWN = RouteLoad("returns/desk")
LOAD = Load(1_000.0, "redis://localhost/0", "abc", 3, 0, (BILLING, AUDIT, MAIL, UNKNOWN))


@pytest.fixture(autouse=True)
def _clock(monkeypatch):
    monkeypatch.setattr("abe_router.cli.top.time.time", lambda: 1_042.0)


def screen(load=LOAD, sort="1", *, reverse=False, error="", columns=80, lines=24, color=False) -> list[str]:
    output = io.StringIO()
    console = Console(file=output, width=columns, height=lines, force_terminal=color, highlight=False)
    console.print(shown(load, sort, reverse=reverse, error=error, columns=columns, lines=lines))
    return [line.rstrip() for line in output.getvalue().split("\n")[:-1]]


def routes(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[3:-2]]


def test_screen_of_80_columns_has_every_number() -> None:
    lines = screen()
    assert [lines[2], lines[4]] == [
        "route               in/s done/s  wait oldest  run   p50   p99 retr/s  dead err/s",
        "orders.…ed/billing  1.2k    988 12.3k     2m   10 1.2ms  1.2s    0.4     3     2",
    ]
    assert lines[0].endswith("3 workers  988 handled/s  redis://localhost/0")
    assert lines[-1] == "q quit  1-9 sort  4 routes"


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("lines", [6, 24])
def test_screen_is_never_wider_or_longer_than_the_terminal(columns: int, lines: int) -> None:
    many = Load(1_000.0, "sqlite:///" + "x" * 300, "abc", 3, 1, (BILLING, AUDIT) * 40)
    found = screen(many, columns=columns, lines=lines)
    assert len(found) <= lines
    assert max(map(len, found)) <= columns
    assert found[-1].endswith(f"80 routes, {80 - len(routes(found))} more below")


def test_wide_screen_shows_whole_routes() -> None:
    assert routes(screen(columns=120))[0] == "orders.created/audit"


def test_routes_are_sorted_by_a_number_and_those_without_one_are_last() -> None:
    billing, mail, audit, desk = (each.route for each in (BILLING, MAIL, AUDIT, UNKNOWN))
    assert routes(screen(sort="4", columns=120)) == [billing, mail, audit, desk]
    assert routes(screen(sort="4", reverse=True, columns=120)) == [audit, mail, billing, desk]
    for digit in "123456789":
        assert len(routes(screen(sort=digit))) == 4


def test_failed_reading_keeps_the_numbers_and_says_their_age() -> None:
    lines = screen(error="cannot connect to redis://\x1b")
    assert lines[0] == r"cannot connect to redis://\x1b (numbers are 42s old)"
    assert len(routes(lines)) == 4
    assert screen(load=None, error="away")[0] == "abe-router top: away"


def test_overrides_in_force_are_named() -> None:
    held = replace(
        AUDIT, paused=True, overrides=(Override("pause", AUDIT.route, 1_000.0, 60.0, "ada@host", "why"),)
    )
    slow = replace(MAIL, overrides=(Override("limit", MAIL.route, 1_000.0, 60.0, "ada@host", "slow", 5.0),))
    one = screen(load=replace(LOAD, routes=(BILLING, held)), columns=120)
    assert one[1].startswith("orders.created/audit paused until ")
    assert one[1].endswith("by ada@host: why")
    assert one[3].split()[2] == "paused"
    two = screen(load=replace(LOAD, routes=(BILLING, held, slow)), columns=120)
    assert two[1].startswith("1 more, and orders.created/audit paused until ")


def test_colour_marks_failures() -> None:
    colored = "\n".join(screen(color=True))
    assert "\x1b[31m    3\x1b[0m" in colored
    assert "\x1b[31m    0" not in colored


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *[
            (0, "0"),
            (0.04, "0.0"),
            (9.94, "9.9"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (99_940, "99.9k"),
        ],
        *[(99_960, "100k"), (999_600, "1.0M"), (12_345_678, "12.3M"), (3e9, "3.0G")],
    ],
)
def test_numbers_take_at_most_five_characters(number: float, text: str) -> None:
    assert _compact(number) == text
    assert len(text) <= 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00025, "250us"), (0.00096, "1.0ms"), (0.0123, "12ms"), (0.9996, "1.0s"), (59.9, "60s"), (120, "2m")],
)
def test_durations_take_at_most_five_characters(seconds: float, text: str) -> None:
    assert _seconds(seconds) == text
