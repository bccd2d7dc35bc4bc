"""Tables of text: columns as wide as their cells, folded where the terminal is too narrow.

A table of 100,000 rows takes a fraction of a second, so a long list is as fast to print as to read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence

#: Columns between two cells, and the narrowest that a column is folded to.
GAP, NARROWEST = 2, 8


def table_lines(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    limit: int | None = None,
    bold: bool = False,
) -> Iterator[str]:
    """Yield the lines of a table; the columns named in `right` are aligned to the right.

    The texts are printable. With a `limit`, the widest columns are folded until a line fits. `bold` marks the
    headings with an escape code.
    """
    cells = [headings, *rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    natural = sum(widths) + GAP * (len(widths) - 1)
    folds = limit is not None and natural > limit
    if limit is not None and folds:
        _narrow(widths, limit - GAP * (len(widths) - 1))
    aligned, gap = [heading in right for heading in headings], " " * GAP
    for number, row in enumerate(cells):
        for part in _folded(row, widths) if folds else [row]:
            line = gap.join(map(_padded, part, widths, aligned)).rstrip()
            yield f"\033[1m{line}\033[0m" if bold and not number else line


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return len(text) if text.isascii() else sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _narrow(widths: list[int], total: int) -> None:
    """Narrow the widest columns, until all together take no more than `total`."""
    while sum(widths) > total and max(widths) > NARROWEST:
        widest = max(widths)
        next_widest = max([w for w in widths if w < widest], default=NARROWEST)
        at = [index for index, w in enumerate(widths) if w == widest]
        share = -(-(sum(widths) - total) // len(at))
        for index in at:
            widths[index] = max(widest - share, next_widest, NARROWEST)


def _folded(row: Sequence[str], widths: Sequence[int]) -> Iterator[Sequence[str]]:
    """Yield the lines of one row, each cell cut into pieces that fit its column."""
    pieces = [_cut(cell, limit) for cell, limit in zip(row, widths, strict=True)]
    for number in range(max(map(len, pieces))):
        yield [cell[number] if number < len(cell) else "" for cell in pieces]


def _cut(text: str, limit: int) -> list[str]:
    pieces, taken = [""], 0
    for character in text:
        size = _width_of(character)
        if taken + size > limit:
            pieces.append("")
            taken = 0
        pieces[-1] += character
        taken += size
    return pieces


def _padded(text: str, limit: int, to_right: bool) -> str:
    space = " " * (limit - width(text))
    return space + text if to_right else text + space
