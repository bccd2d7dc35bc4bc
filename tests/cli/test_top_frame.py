"""The frame of `top`: columns, order, filter, keys."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from abe_router.cli.table import width
from abe_router.cli.top_frame import View, _compact, _seconds, frame, plain_rows, pressed
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
DEFAULT = View()
LOAD = Load(1_000.0, "redis://localhost/0", "abc", 3, 0, (BILLING, AUDIT, MAIL, UNKNOWN))


def shown(view: View = DEFAULT, load: Load | None = LOAD, **options) -> list[str]:
    return frame(load, view, **{"columns": 80, "lines": 24, "color": False, "now": 1_000.0, **options})


def routes(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[3:-1] if line]


def after(keys: list[str], view: View = DEFAULT) -> View | None:
    for key in keys:
        assert view is not None
        view = pressed(view, key, 19)
    return view


def test_frame_of_80_columns_has_every_number() -> None:
    lines = shown()
    assert [lines[2], lines[4]] == [
        "route               in/s done/s  wait oldest  run   p50   p99 retr/s  dead err/s",
        "orders.…ed/billing  1.2k    988 12.3k     1m   10 1.2ms  1.2s    0.4     3     2",
    ]
    assert lines[0].endswith("3 workers  988 handled/s  redis://localhost/0")
    assert len(lines) == 24
    assert {width(line) for line in lines[2:7]} == {80}


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_frame_is_never_wider_or_longer_than_the_screen(columns: int) -> None:
    many = Load(1_000.0, "sqlite:///" + "x" * 300, "abc", 3, 1, (BILLING, AUDIT) * 40)
    for view in (View(), View(help=True), View(filter="y" * 300, typing=True)):
        for lines in (6, 24):
            found = shown(view, many, columns=columns, lines=lines, error="")
            assert len(found) <= lines
            assert max(map(width, found)) <= columns


def test_wide_screen_shows_whole_routes() -> None:
    assert routes(shown(columns=120))[0] == "orders.created/audit"


def test_narrow_screen_says_what_top_needs() -> None:
    assert shown(columns=79) == ["top needs 80 columns, and has 79"]


def test_digits_sort_and_reverse() -> None:
    assert after(["4"]) == View(sort="4", descending=True)
    assert [route[:8] for route in routes(shown(after(["4"]), columns=120))] == [
        "orders.c",
        "orders.p",
        "orders.c",
        "returns/",
    ]
    reverse = after(["4", "4"])
    assert reverse == View(sort="4", descending=False)
    assert routes(shown(reverse, columns=120)) == [
        "orders.created/audit",
        "orders.paid.by.invoice/mail",
        "orders.created/billing",
        "returns/desk",  # a route without a number is last either way
    ]
    for digit in "123456789":
        assert len(routes(shown(after([digit])))) == 4
    assert after(["1"]) == View(descending=True)


def test_filter_keeps_routes_that_contain_its_text() -> None:
    typing = after(["/", "M", "a", "x", "backspace"])
    assert typing == View(filter="Ma", typing=True)
    assert shown(typing)[1] == "filter: Ma_"
    kept = after(["enter", "q"], typing)
    assert kept is None
    kept = after(["enter"], typing)
    assert (routes(shown(kept)), shown(kept)[1]) == ([routes(shown())[2]], "filter: Ma")
    assert after(["escape"], kept) == View()
    assert after(["escape"], typing) == View()


def test_help_explains_every_column_and_any_key_closes_it() -> None:
    said = "\n".join(shown(after(["?"])))
    for heading in plain_rows(LOAD, 0.0)[0]:
        assert heading in said
    assert after(["?", "x"]) == View()
    assert after(["?", "q"]) is None


def test_long_list_scrolls_and_stays_within_its_ends() -> None:
    many = Load(1_000.0, "memory://", "abc", 1, 0, tuple(RouteLoad(f"r.{n:03}/g") for n in range(100)))
    assert routes(shown(View(), many))[0] == "r.000/g"
    assert shown(View(), many)[-1].endswith("1-20 of 100")
    assert routes(shown(after(["j", "down", "k"]), many))[0] == "r.001/g"
    assert routes(shown(after(["page down"]), many))[0] == "r.019/g"
    assert routes(shown(after(["G"]), many)) == [f"r.{n:03}/g" for n in range(80, 100)]
    assert after(["G", "home", "up"]) == View()


def test_unknown_key_changes_nothing() -> None:
    assert after(["x", "0", "enter", "left"]) == View()


def test_failed_reading_keeps_the_numbers_and_says_their_age() -> None:
    lines = shown(error="cannot connect to redis://\x1b", now=1_042.0)
    assert lines[0] == r"cannot connect to redis://\x1b (numbers are 42s old)"
    assert len(routes(lines)) == 4
    assert shown(load=None, error="away")[0] == "abe-router top: away"


def test_overrides_in_force_are_named() -> None:
    held = replace(
        AUDIT, paused=True, overrides=(Override("pause", AUDIT.route, 1_000.0, 60.0, "ada@host", "why"),)
    )
    slow = replace(MAIL, overrides=(Override("limit", MAIL.route, 1_000.0, 60.0, "ada@host", "slow", 5.0),))
    one = shown(load=replace(LOAD, routes=(BILLING, held)), columns=120)
    assert one[1].startswith("orders.created/audit paused until ")
    assert one[1].endswith("by ada@host: why")
    assert one[3].split()[2] == "paused"
    two = shown(load=replace(LOAD, routes=(BILLING, held, slow)), columns=120)
    assert two[1].startswith("1 more, and orders.created/audit paused until ")


def test_colour_marks_failures_and_changes_no_text() -> None:
    colored = "\n".join(shown(color=True))
    assert re.sub(r"\x1b\[\d+m", "", colored) == "\n".join(shown())
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
