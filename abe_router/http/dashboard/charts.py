"""Drawings as SVG: sparklines of the routes, and the charts of one route."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

#: Size of a sparkline, in pixels.
WIDTH, HEIGHT = 96, 24


def spark(values: Sequence[float | None], label: str, style: str = "") -> Markup:
    """Return a sparkline, scaled to its own peak. `label` says it in words, and `style` is a class."""
    known = [value or 0.0 for value in values]
    peak = max(known, default=0.0)
    if not peak:
        style, path = "flat", f"M-2 22H{WIDTH + 2}"
    else:
        step = (WIDTH + 4) / max(1, len(known) - 1)
        points = [
            (round(step * number - 2), 22 - round(20 * value / peak)) for number, value in enumerate(known)
        ]
        path = f"M-2 26V{points[0][1]}" + "".join(f"L{x} {y}" for x, y in points[1:]) + "V26"
    return Markup(
        '<svg class="spark {}" viewBox="0 0 {} {}" role="img" aria-label="{}"><path d="{}"/></svg>'
    ).format(style, WIDTH, HEIGHT, label, path)
