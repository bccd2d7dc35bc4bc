"""The result as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.contender import LOOP, Contender
from bench.metric import Metric, Values
from bench.target import TARGETS


class Table:
    """The table of all values; `about` describes the run."""

    def __init__(
        self,
        values: Values,
        metrics: Sequence[Metric],
        contenders: Sequence[Contender],
        about: Mapping[str, str],
    ) -> None:
        self._values, self._contenders, self._about = values, contenders, about
        measured = [m for m in metrics if any(values.median(m.name, c.name) is not None for c in contenders)]
        # Metrics that only abe-router has are no comparison; they form a list of their own.
        self._shared = [m for m in measured if values.median(m.name, LOOP.name) is not None]
        self._ours = [m for m in measured if m not in self._shared]

    def as_text(self) -> str:
        """Return ratios, then absolute numbers, then targets."""
        blocks = ["\n".join(f"{name}: {text}" for name, text in self._about.items())]
        if self._shared:
            title = f"Ratios to the {LOOP.title}: medians of repeats (time, memory: less is better)"
            blocks.append("\n".join([title, *self._rows(self._shared, self._ratio)]))
            title = "Medians, and how far repeats lie from them"
            blocks.append("\n".join([title, *self._rows(self._shared, self._median)]))
        if self._ours:
            title = "Of abe-router alone: medians, and how far repeats lie from them"
            blocks.append("\n".join([title, *self._rows(self._ours, self._median)]))
        if targets := list(self._targets()):
            blocks.append("\n".join(["Targets", *targets]))
        return "\n\n".join(blocks)

    def as_json(self) -> Any:
        """Return all values, the ratios and the targets as JSON data."""
        values = self._values
        metrics = [*self._shared, *self._ours]
        return {
            "about": dict(self._about),
            "values": {
                m.name: {
                    c.name: [None if math.isnan(v) else v for v in values.of(m.name, c.name)]
                    for c in self._contenders
                    if values.of(m.name, c.name)
                }
                for m in metrics
            },
            "ratios": {
                m.name: {
                    c.name: ratio.median
                    for c in self._contenders
                    if (ratio := values.ratio(m.name, c.name, LOOP.name)) is not None
                }
                for m in self._shared
            },
            "targets": [
                {"title": t.title, "bound": t.bound, "reached": reached, "met": t.is_met(reached)}
                for t in TARGETS
                if (reached := t.reached(values)) is not None
            ],
        }

    def _rows(self, metrics: Sequence[Metric], cell: Callable[[Metric, Contender], str]) -> Iterator[str]:
        taking_part = [c for c in self._contenders if any(self._values.of(m.name, c.name) for m in metrics)]
        rows = [[m.title, *(cell(m, c) for c in taking_part), m.unit] for m in metrics]
        rows.insert(0, ["", *(c.name for c in taking_part), ""])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for title, *cells, unit in rows:
            padded = [text.rjust(width) for text, width in zip(cells, widths[1:-1], strict=True)]
            yield "  ".join([title.ljust(widths[0]), *padded, unit]).rstrip()

    def _ratio(self, metric: Metric, contender: Contender) -> str:
        ratio = self._values.ratio(metric.name, contender.name, LOOP.name)
        return number(ratio.median) if ratio else ""

    def _median(self, metric: Metric, contender: Contender) -> str:
        median = self._values.median(metric.name, contender.name)
        if median is None:
            return ""
        values = self._values.of(metric.name, contender.name)
        if len(values) == 1 or not median:
            return number(median)
        away = max(abs(value / median - 1) for value in values)
        return f"{number(median)} ±{away:3.0%}"

    def _targets(self) -> Iterator[str]:
        width = max(len(target.title) for target in TARGETS)
        for target in TARGETS:
            reached = target.reached(self._values)
            if reached is not None:
                bound = f"{'at most' if target.at_most else 'at least'} {target.bound:g}"
                verdict = "met" if target.is_met(reached) else "MISSED"
                yield f"{target.title.ljust(width)}  {bound:>13}  {number(reached):>8}  {verdict}"


def number(value: float) -> str:
    """Return a value with three digits, or all of a large one; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
