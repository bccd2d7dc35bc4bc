"""What is measured, as rows of the table, and the values found for them."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: `unit` as printed, and whether a larger number is a better one."""

    name: str
    title: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times another's value one is: the median over repeats, the least and the most."""

    median: float
    least: float
    most: float


class Values:
    """What was measured: of each metric and contender a value for each repeat, in the order of repeats.

    It is NaN where the contender has nothing to measure, or failed.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, metric: str, contender: str, value: float) -> None:
        """Note a value."""
        self._values[metric, contender].append(value)

    def of(self, metric: str, contender: str) -> Sequence[float]:
        """Return the values of all repeats."""
        return self._values.get((metric, contender), ())

    def median(self, metric: str, contender: str) -> float | None:
        """Return the median, or None when there is no value."""
        values = [value for value in self.of(metric, contender) if not math.isnan(value)]
        return statistics.median(values) if values else None

    def ratio(self, metric: str, contender: str, to: str, to_metric: str = "") -> Ratio | None:
        """Return how many times another's value it is, or None when either has no value.

        Each repeat is compared with the same repeat of the other, since both then met the same noise.
        """
        pairs = zip(self.of(metric, contender), self.of(to_metric or metric, to), strict=False)
        found = [mine / other for mine, other in pairs if other and not math.isnan(mine / other)]
        return Ratio(statistics.median(found), min(found), max(found)) if found else None
