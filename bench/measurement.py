"""A measurement: the rows it fills, the contenders that take part, and the size of its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.contender import Contender
from bench.metric import Metric
from bench.server import Server

Found = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of work: `seconds` of publishing, `steady` of a steady rate, `watch` of idle routes.

    `part` of each backlog is drained. Series with many steps go on to the last one if it is `full`. `repeats`
    overrides the repeats of the measurements unless it is None.
    """

    seconds: float
    steady: float
    watch: float
    part: float = 1.0
    full: bool = False
    repeats: int | None = None

    def times(self, factor: float) -> Scale:
        """Return a scale with samples that are `factor` times as large."""
        return replace(
            self,
            seconds=self.seconds * factor,
            steady=self.steady * factor,
            watch=self.watch * factor,
            part=self.part * factor,
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run of one contender, which returns a value for each of the `metrics`.

    `excluded` contenders do not take part; with `only`, no others do. The short form runs it `repeats` times,
    or not at all if it `is_long`.
    """

    name: str
    metrics: tuple[Metric, ...]
    run: Callable[[Contender, Server, Scale], Found]
    excluded: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    repeats: int = 3
    is_long: bool = False

    def contenders(self, all_: Sequence[Contender]) -> Iterator[Contender]:
        """Return the contenders that take part."""
        for contender in all_:
            is_asked = contender.name in self.only or not self.only
            if (
                is_asked
                and contender.name not in self.excluded
                and self.name in (contender.rows or (self.name,))
            ):
                yield contender


def share(backlog: int, scale: Scale) -> int:
    return int(backlog * scale.part)


def per_second(name: str, title: str) -> Metric:
    return Metric(name, title, "/s", more_is_better=True)
