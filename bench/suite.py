"""The measurements: which rows each one fills, with which contenders, and how often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.contender import BACKLOG, REDIS, Contender
from bench.drain import drain
from bench.latency import latency
from bench.metric import Metric
from bench.publishing import publish
from bench.routes import idle, reload
from bench.server import Server
from bench.startup import startup

#: Numbers of keys under one pattern, each compared with one key. The last one is measured by `--long` alone.
KEYS = (5, 100, 1_000, 10_000)
#: Concurrency of sleeping handlers.
SLEEPERS = 100

Found = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """The amount of work: `seconds` of publishing, `steady` of a steady rate, `watch` of idle routes.

    `part` of each backlog is drained. `keys` are the numbers of keys under one pattern. `repeats` overrides
    the repeats of the measurements unless it is None.
    """

    seconds: float
    steady: float
    watch: float
    part: float = 1.0
    keys: tuple[int, ...] = KEYS[:-1]
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


SHORT = Scale(seconds=0.5, steady=1.0, watch=4.0, part=0.7)
LONG = Scale(seconds=1.5, steady=5.0, watch=20.0, keys=KEYS, repeats=5)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run of one contender, which returns a value for each of the `metrics`.

    `excluded` contenders do not take part; with `only`, no others do. The short form runs it `repeats` times.
    """

    name: str
    metrics: tuple[Metric, ...]
    run: Callable[[Contender, Server, Scale], Found]
    excluded: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    repeats: int = 3

    def contenders(self, all_: Sequence[Contender]) -> Iterator[Contender]:
        """Return the contenders that take part."""
        for contender in all_:
            if contender.name not in self.excluded and (not self.only or contender.name in self.only):
                yield contender


def _publish(contender: Contender, server: Server, scale: Scale) -> Found:
    found = publish(contender, server, scale.seconds)
    return {"publish.one": found.one, "publish.many": found.many, "publish.batch": found.batch}


def _drain(contender: Contender, server: Server, scale: Scale) -> Found:
    found = drain(contender, server, _share(contender.backlog, scale))
    return {
        "drain": found.rate,
        "drain.cpu": found.cpu * 1e6,
        "drain.redis_cpu": found.redis_cpu * 1e6,
        "drain.memory": found.memory / 1e6,
        "drain.first": found.first * 1e3,
    }


def _sleep(contender: Contender, server: Server, scale: Scale) -> Found:
    count = _share(min(contender.backlog, BACKLOG // 5), scale)
    return {"sleep": drain(contender, server, count, handling="sleep", concurrency=SLEEPERS).rate}


def _latency(contender: Contender, server: Server, scale: Scale) -> Found:
    found = latency(contender, server, scale.steady)
    return {"latency.p50": found.p50 * 1e6, "latency.p99": found.p99 * 1e6}


def _two(contender: Contender, server: Server, scale: Scale) -> Found:
    return {"two": drain(contender, server, _share(contender.backlog, scale), workers=2).rate}


def _scaling(contender: Contender, server: Server, scale: Scale) -> Found:
    count = _share(BACKLOG // 5, scale)
    one, two = (drain(contender, server, count, handling="work", workers=n).rate for n in (1, 2))
    return {"scaling": two / one}


def _big(contender: Contender, server: Server, scale: Scale) -> Found:
    count = _share(contender.backlog, scale) // 10
    return {
        "big.publish": publish(contender, server, scale.seconds / 2, payload="event").many,
        "big.drain": drain(contender, server, max(1_000, count), payload="event").rate,
    }


def _shared(contender: Contender, server: Server, scale: Scale) -> Found:
    count = contender.backlog  # all of it: a hundredth of a smaller backlog would only measure the start
    one, hundred = drain(contender, server, count), drain(contender, server, count, routes=100)
    return {"shared.time": one.rate / hundred.rate, "shared.cpu": hundred.cpu / one.cpu}


def _keys(contender: Contender, server: Server, scale: Scale) -> Found:
    count = _share(contender.backlog, scale)
    one = drain(contender, server, count, by_pattern=True).rate
    return {
        f"keys.{number}": drain(contender, server, count, routes=number, by_pattern=True).rate / one
        if number in scale.keys
        else math.nan
        for number in KEYS
    }


def _idle(contender: Contender, server: Server, scale: Scale) -> Found:
    found = idle(contender, server, scale.watch)
    return {
        "idle.cpu": found.cpu * 100,
        "idle.connections": found.connections,
        "idle.memory": found.memory / 1e6,
        "idle.ready": found.ready * 1e3,
    }


def _reload(contender: Contender, server: Server, scale: Scale) -> Found:
    found = reload(server)
    return {
        "reload.live": found.live * 1e3,
        "reload.gap": found.gap * 1e3,
        "reload.gap_before": found.gap_before * 1e3,
    }


def _startup(contender: Contender, server: Server, scale: Scale) -> Found:
    found = startup(server)
    return {
        "start.python": found.python * 1e3,
        "start.help": found.help * 1e3,
        "start.publish": found.publish * 1e3,
        "start.serve": found.serve * 1e3,
    }


def _share(backlog: int, scale: Scale) -> int:
    return int(backlog * scale.part)


def _per_second(name: str, title: str) -> Metric:
    return Metric(name, title, "/s", more_is_better=True)


MEASUREMENTS = (
    Measurement(
        "publish",
        (
            _per_second("publish.one", "publish, one after the other"),
            _per_second("publish.many", "publish, many callers at once"),
            _per_second("publish.batch", "publish, batches of 500"),
        ),
        _publish,
        excluded=("faststream-batch",),
    ),
    Measurement(
        "drain",
        (
            _per_second("drain", "drain a backlog"),
            Metric("drain.cpu", "  processor time a message", "us"),
            Metric("drain.redis_cpu", "  the same of Redis", "us"),
            Metric("drain.memory", "  peak memory", "MB"),
            Metric("drain.first", "  start to first message", "ms"),
        ),
        _drain,
    ),
    Measurement(
        "sleep",
        (_per_second("sleep", f"drain, handler sleeps 1 ms, {SLEEPERS} at once"),),
        _sleep,
        excluded=("usual", "faststream-guide", "faststream-batch"),
        repeats=2,
    ),
    Measurement(
        "latency",
        (
            Metric("latency.p50", "latency at 1,000/s, p50", "us"),
            Metric("latency.p99", "latency at 1,000/s, p99", "us"),
        ),
        _latency,
        repeats=2,
    ),
    Measurement(
        "two",
        (_per_second("two", "drain, two worker processes"),),
        _two,
        excluded=("memory", "usual", "redis-asyncio", "faststream-guide", "faststream-batch"),
        repeats=1,
    ),
    Measurement(
        "big",
        (
            _per_second("big.publish", "10 KB: publish, many callers"),
            _per_second("big.drain", "10 KB: drain"),
        ),
        _big,
        excluded=("usual", "redis-asyncio", "faststream-guide", "faststream-batch"),
        repeats=1,
    ),
    Measurement(
        "scaling",
        (Metric("scaling", "two workers for one: speed, handler works for 50 us", "x", more_is_better=True),),
        _scaling,
        only=("redis", "sqlite"),
        repeats=2,
    ),
    Measurement(
        "shared",
        (
            Metric("shared.time", "100 routes for 1: time a message", "x"),
            Metric("shared.cpu", "100 routes for 1: processor time a message", "x"),
        ),
        _shared,
        only=("redis", "sqlite"),
        repeats=2,
    ),
    Measurement(
        "keys",
        tuple(
            Metric(
                f"keys.{number}", f"{number:,} keys under one pattern for 1: rate", "x", more_is_better=True
            )
            for number in KEYS
        ),
        _keys,
        only=("redis", "sqlite"),
        repeats=1,
    ),
    Measurement(
        "idle",
        (
            Metric("idle.cpu", "1,000 idle routes: processor", "%"),
            Metric("idle.connections", "1,000 idle routes: connections", ""),
            Metric("idle.memory", "1,000 idle routes: peak memory", "MB"),
            Metric("idle.ready", "1,000 routes: start until all handled", "ms"),
        ),
        _idle,
        only=("redis",),
        repeats=1,
    ),
    Measurement(
        "reload",
        (
            Metric("reload.live", "edit of 1 in 1,000 routes: save to effect", "ms"),
            Metric("reload.gap", "  longest gap of the others", "ms"),
            Metric("reload.gap_before", "  the same before the edit", "ms"),
        ),
        _reload,
        only=(REDIS.name,),
        repeats=1,
    ),
    Measurement(
        "start",
        (
            Metric("start.python", "start: an interpreter alone", "ms"),
            Metric("start.help", "start: --help", "ms"),
            Metric("start.publish", "start: publish of one message", "ms"),
            Metric("start.serve", "start: serve until 100 routes handled one", "ms"),
        ),
        _startup,
        only=(REDIS.name,),
    ),
)
