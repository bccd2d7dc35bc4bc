"""Drawings as SVG: sparklines of the routes, and the charts of one route.

A chart has at most four lines of a grid, and says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup, escape

from abe_router.http.dashboard.formats import split_duration
from abe_router.observe.tally import HANDLING_BOUNDS

#: Size of a sparkline, and of a chart with the edges of what is drawn in it, in pixels.
WIDTH, HEIGHT = 96, 24
CHART_WIDTH, CHART_HEIGHT = 428, 168
LEFT, RIGHT, TOP, BOTTOM = 44, 424, 8, 144
#: The number of labels below a chart.
TIMES = 5

Values = Sequence[float | None]


def spark(values: Values, label: str, style: str = "") -> Markup:
    """Return a sparkline, scaled to its own peak. `label` says it in words, and `style` is a class."""
    known = [value or 0.0 for value in values]
    peak = max(known, default=0.0)
    if not peak:
        style, path = "flat", f"M-2 22H{WIDTH + 2}"
    else:
        step = (WIDTH + 4) / max(1, len(known) - 1)
        heights = [22 - round(20 * value / peak) for value in known]
        points = [(round(step * number - 2), height) for number, height in enumerate(heights)]
        path = f"M-2 26V{points[0][1]}" + "".join(f"L{x} {y}" for x, y in points[1:]) + "V26"
    return Markup(  # noqa: S704  numbers, and an escaped label
        f'<svg class="spark {style}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<path d="{path}"/></svg>'
    )


@dataclass(frozen=True)
class Curve:
    """One line of a chart. `style` is its class; an `area` is filled."""

    values: Values
    style: str = ""


@dataclass(frozen=True)
class Mark:
    """A moment that a chart marks, in seconds since the epoch, and its name."""

    at: float
    name: str


def count_label(value: float) -> str:
    """Return a number for an axis: `400`, `1.5k`, `0.2`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration_label(value: float) -> str:
    """Return a duration for an axis: `80 ms`."""
    return " ".join(split_duration(value)) if value else "0"


def line_chart(
    lines: Sequence[Curve],
    label: str,
    *,
    until: float,
    seconds: float,
    write: Callable[[float], str] = count_label,
    marks: Sequence[Mark] = (),
) -> Markup:
    """Return a chart of lines over the last `seconds` before `until`. `write` writes the numbers at its side.

    The first line has an area below it, unless it has a style.
    """
    top = _round_up(max((value for line in lines for value in line.values if value), default=0.0))
    parts = [*_grid(top, write)]
    for line in lines:
        parts += _paths(line, top)
    for mark in marks:
        if until - seconds <= mark.at <= until:
            x = RIGHT - (until - mark.at) / seconds * (RIGHT - LEFT)
            anchor = "end" if x > (LEFT + RIGHT) / 2 else "start"
            parts.append(
                Markup(
                    '<path class="mark" d="M{:.0f} {}V{}"/>'
                    '<text class="k" x="{:.0f}" y="18" text-anchor="{}">{}</text>'
                ).format(x, TOP, BOTTOM, x + (-5 if anchor == "end" else 5), anchor, mark.name)
            )
    parts += _times(until, seconds)
    return _chart(label, parts)


def histogram(calls: Sequence[int], label: str, *, slow: float) -> Markup:
    """Return a chart of the calls of a handler by their duration; those above `slow` seconds stand out."""
    bounds = [*HANDLING_BOUNDS, math.inf]
    filled = [number for number, count in enumerate(calls) if count]
    first, last = (max(0, min(filled) - 1), min(len(calls), max(filled) + 2)) if filled else (4, 12)
    peak = max(calls, default=0) or 1
    width = (RIGHT - 4) / (last - first)
    parts = [Markup('<path class="grid" d="M4 {}.5H{}"/>').format(BOTTOM, RIGHT)]
    for place, number in enumerate(range(first, last)):
        count, x = calls[number] if calls else 0, 4 + place * width
        height = max(1.0, count / peak * (BOTTOM - TOP - 18)) if count else 0.0
        lower = bounds[number - 1] if number else 0.0
        bound = f"> {duration_label(lower)}" if math.isinf(bounds[number]) else duration_label(bounds[number])
        parts.append(
            Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
                '<text x="{:.1f}" y="162" text-anchor="middle">{}</text>'
            ).format(
                "slow" if lower >= slow else "",
                x + 2,
                BOTTOM - height,
                width - 4,
                height,
                x + width / 2,
                bound,
            )
        )
        if count:
            parts.append(
                Markup('<text class="k" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>').format(
                    x + width / 2, BOTTOM - height - 5, count_label(count)
                )
            )
    return _chart(label, parts, "dense")


def _chart(label: str, parts: Sequence[Markup], style: str = "") -> Markup:
    return Markup('<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        style, CHART_WIDTH, CHART_HEIGHT, label, Markup("").join(parts)
    )


def _grid(top: float, write: Callable[[float], str]) -> Iterator[Markup]:
    for number in range(4):
        y = BOTTOM - number / 3 * (BOTTOM - TOP)
        yield Markup(
            '<path class="grid" d="M{} {:.1f}H{}"/><text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        ).format(LEFT, y, RIGHT, LEFT - 6, y + 4, write(top * number / 3))


def _paths(line: Curve, top: float) -> Iterator[Markup]:
    """Draw a line; where a value is not known, it has a gap."""
    step = (RIGHT - LEFT) / max(1, len(line.values) - 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(line.values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((LEFT + number * step, BOTTOM - value / top * (BOTTOM - TOP)))
    for run in runs:
        if not run:
            continue
        if len(run) == 1:  # one point alone is a short dash
            run.append((run[0][0] + 2, run[0][1]))
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in run)
        if not line.style:
            ends = run[-1][0], BOTTOM, run[0][0]
            yield Markup('<path class="area" d="M{}L{:.1f} {}L{:.1f} {}Z"/>').format(
                path, *ends[:2], ends[2], BOTTOM
            )
        yield Markup('<path class="line {}" d="M{}"/>').format(line.style, path)


def _times(until: float, seconds: float) -> Iterator[Markup]:
    for number in range(TIMES):
        share = number / (TIMES - 1)
        anchor = "start" if number == 0 else "end" if number == TIMES - 1 else "middle"
        at = datetime.fromtimestamp(until - (1 - share) * seconds, UTC)
        yield Markup('<text x="{:.0f}" y="162" text-anchor="{}">{}</text>').format(
            LEFT + share * (RIGHT - LEFT), anchor, f"{at:%H:%M}"
        )


def _round_up(value: float) -> float:
    """Return the next number that has a third of few digits: 3, 6, 9, 15 times a power of ten."""
    if value <= 0:
        return 3.0
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1.2, 1.5, 3, 6, 9, 12):
        if value <= factor * power:
            return factor * power
    return 15 * power
