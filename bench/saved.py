"""Tables from saved runs, the output of `python -m bench --json`: before and after, and what to expect."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.metric import Metric
from bench.table import number

#: The rows of "What to expect" in docs/performance.md: title, metric, unit, and its size.
_EXPECTED = (
    ("handled by one worker, per second", "drain", "", 1.0),
    ("published by one program, one after the other, per second", "publish.one", "", 1.0),
    ("published by many callers at once, per second", "publish.many", "", 1.0),
    ("from `publish` to the handler, in the median", "latency.p50", " ms", 1e3),
    ("memory of a worker", "drain.memory", " MB", 1.0),
)
_BACKENDS = {"redis": "Redis", "sqlite": "SQLite", "memory": "memory"}


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run: what is said about it, and the values of each metric by contender, one for each repeat."""

    about: Mapping[str, str]
    values: Mapping[str, Mapping[str, Sequence[float | None]]]

    @classmethod
    def read(cls, path: Path) -> SavedRun:
        """Read a run; raise SystemExit if the file is none."""
        try:
            data: Any = json.loads(path.read_text())
            return cls(data["about"], data["values"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path} is not a saved run of `python -m bench --json`: {error}") from None

    def median(self, metric: str, contender: str) -> float | None:
        """Return the median of the repeats, or None without a value."""
        found = [value for value in self.values.get(metric, {}).get(contender, ()) if value is not None]
        return statistics.median(found) if found else None


def comparison(before: SavedRun, after: SavedRun, metrics: Sequence[Metric]) -> Iterator[str]:
    """Yield the lines of a table: each value that both runs have, and the second for the first."""
    rows = [("", "", "before", "after", "ratio", "")]
    for metric in metrics:
        for contender in after.values.get(metric.name, {}):
            old, new = before.median(metric.name, contender), after.median(metric.name, contender)
            if old and new is not None:
                values = number(old), number(new), number(new / old)
                rows.append((metric.title, contender, *values, metric.unit))
    for name, run in (("before", before), ("after", after)):
        yield f"{name}: {run.about.get('with', '')}; {run.about.get('noise', '')}"
    yield ""
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for title, contender, *values, unit in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[2:5], strict=True)]
        yield "  ".join([title.ljust(widths[0]), contender.ljust(widths[1]), *cells, unit]).rstrip()


def expectation(run: SavedRun) -> Iterator[str]:
    """Yield the lines of the table "What to expect", in Markdown, without what was not measured."""
    yield f"| | {' | '.join(_BACKENDS.values())} |"
    yield f"|---|{'---|' * len(_BACKENDS)}"
    for title, metric, unit, size in _EXPECTED:
        found = [run.median(metric, name) for name in _BACKENDS]
        cells = ("" if value is None else f"{_rounded(value / size)}{unit}" for value in found)
        yield f"| {title} | {' | '.join(cells)} |"


def _rounded(value: float) -> str:
    """Return two digits of a value: all that another machine has in common with this one."""
    return f"{float(f'{value:.2g}'):,g}"
