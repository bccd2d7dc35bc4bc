"""The rows of the table, and their values."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: its unit, and whether a larger number is better."""

    name: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two values: its median over the repeats, its minimum and its maximum."""

    median: float
    least: float
    most: float


class Values:
    """The values of each metric and contender, one for each repeat, in order.

    A value is NaN where the contender cannot do it, or failed.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, metric: str, contender: str, value: float) -> None:
        """Add a value."""
        self._values[metric, contender].append(value)

    def of(self, metric: str, contender: str) -> Sequence[float]:
        """Return the values of all repeats."""
        return self._values.get((metric, contender), ())

    def median(self, metric: str, contender: str) -> float | None:
        """Return the median, or None without values."""
        values = [value for value in self.of(metric, contender) if not math.isnan(value)]
        return statistics.median(values) if values else None

    def ratio(self, metric: str, contender: str, to: str, to_metric: str = "") -> Ratio | None:
        """Return the ratio of the values of two contenders, or None if either has none.

        Each repeat is compared with the same repeat of the other contender, which ran under the same noise.
        """
        pairs = zip(self.of(metric, contender), self.of(to_metric or metric, to), strict=False)
        found = [mine / other for mine, other in pairs if other and not math.isnan(mine / other)]
        return Ratio(statistics.median(found), min(found), max(found)) if found else None
