"""Targets: bounds on ratios and values."""

from __future__ import annotations

from dataclasses import dataclass

from bench.metric import Values


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the value of `contender` in `metric`.

    With `to`, it is a bound on the ratio to that contender in `to_metric`, by default the same metric.
    """

    title: str
    bound: float
    metric: str
    contender: str = "redis"
    to: str = ""
    to_metric: str = ""
    at_most: bool = False

    def reached(self, values: Values) -> float | None:
        """Return the median, or None if it was not measured."""
        if not self.to:
            return values.median(self.metric, self.contender)
        ratio = values.ratio(self.metric, self.contender, self.to, self.to_metric)
        return ratio.median if ratio else None

    def is_met(self, reached: float) -> bool:
        """Return whether a value meets the bound."""
        return reached <= self.bound if self.at_most else reached >= self.bound


TARGETS = (
    Target("drain on Redis / hand-written loop", 0.7, "drain", to="loop"),
    Target("drain on Redis / FastStream", 25, "drain", to="faststream"),
    Target("concurrent publish / Lua batch", 0.75, "publish.many", to="loop", to_metric="publish.batch"),
    Target("concurrent publish / FastStream", 10, "publish.many", to="faststream"),
    Target("latency p50 / hand-written loop", 1.5, "latency.p50", to="loop", at_most=True),
    Target("latency p50 / FastStream", 1.0, "latency.p50", to="faststream", at_most=True),
    Target("drain on SQLite / FastStream on Redis", 10, "drain", "sqlite", to="faststream"),
    Target("drain in memory / drain on Redis", 1.0, "drain", "memory", to="redis"),
    Target("drain in memory / drain on SQLite", 1.0, "drain", "memory", to="sqlite"),
    Target("100 routes for 1: cost a message", 1.15, "routes.100.cpu", at_most=True),
    Target("100 keys under one pattern, Redis: rate for 1", 0.8, "keys.100"),
    Target("10,000 keys under one pattern, Redis: rate for 1", 0.4, "keys.10000"),
    Target("10,000 keys under one pattern, SQLite: rate for 1", 0.8, "keys.10000", "sqlite"),
    Target("1,000 idle routes: % of a core", 2.0, "idle.cpu", at_most=True),
    Target("1,000 idle routes: connections", 10, "idle.connections", at_most=True),
    Target("1,000 idle routes: peak memory, MB", 150, "idle.memory", at_most=True),
    Target("edit of 1 in 1,000: save to effect, ms", 500, "reload.live", at_most=True),
    Target(
        "p50 at 200/s, SQLite / huey on SQLite", 1.0, "latency.200.p50", "sqlite", "huey-sqlite", at_most=True
    ),
    Target(
        "p50 at 500/s, SQLite / huey on SQLite", 1.0, "latency.500.p50", "sqlite", "huey-sqlite", at_most=True
    ),
    Target("1,000 routes for 1: cost a message", 1.3, "routes.1000.cpu", at_most=True),
    Target("a `Reject` for a success: processor time", 8.0, "failures.reject", at_most=True),
    Target("a failed attempt for a success: processor time", 8.0, "failures.fail", at_most=True),
    Target("500 KB: drain on Redis / decode, check, await", 0.9, "payload.drain.500000", to="floor"),
    Target("two workers / one, handler works for 50 us", 1.6, "scaling"),
    Target("two workers / one, handler does nothing", 1.6, "two", to="redis", to_metric="drain"),
    Target("--help, ms", 50, "start.help", at_most=True),
    Target("publish of one message, ms", 200, "start.publish", at_most=True),
    Target("serve of 100 routes ready, ms", 1500, "start.serve.100", at_most=True),
    Target("serve of 1,000 routes ready, ms", 500, "start.serve.1000", at_most=True),
)
