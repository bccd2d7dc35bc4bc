"""Tables of text: alignment, width and folding."""

from __future__ import annotations

from abe_router.cli.table import table_lines, width

ROWS = [("orders.created/billing", "12"), ("a", "1,000")]


def test_columns_are_as_wide_as_their_cells() -> None:
    assert list(table_lines(("route", "ready"), ROWS, right={"ready"})) == [
        "route                   ready",
        "orders.created/billing     12",
        "a                       1,000",
    ]


def test_wide_and_combining_characters_take_their_columns() -> None:
    assert [width(text) for text in ("abc", "注文", "e\u0301", "")] == [3, 4, 1, 0]
    assert list(table_lines(("a", "b"), [("注文", "x")])) == ["a     b", "注文  x"]


def test_widest_column_is_folded_until_a_line_fits() -> None:
    lines = list(table_lines(("route", "note"), [("x" * 30, "y" * 10)], limit=24))
    assert lines == ["route         note", "x" * 12 + "  " + "y" * 10, "x" * 12, "x" * 6]
    assert max(map(width, table_lines(("a", "b"), [("注" * 20, "文" * 20)], limit=30))) <= 30


def test_table_without_rows_has_its_headings() -> None:
    assert list(table_lines(("a", "b"), [], limit=80, bold=True)) == ["\033[1ma  b\033[0m"]
