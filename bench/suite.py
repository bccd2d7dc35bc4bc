"""The measurements: which rows each one fills, with which contenders, and how often."""

from __future__ import annotations

from bench.cluster import MASTERS, SLOTS, cluster
from bench.contender import BACKLOG, REDIS, Contender
from bench.drain import drain
from bench.growth import GROWTH
from bench.latency import RATE, latency
from bench.measurement import Found, Measurement, Scale, per_second, share
from bench.metric import Metric
from bench.publishing import publish
from bench.routes import idle, reload
from bench.server import Server
from bench.startup import ROUTES, startup

#: Low rates, in messages per second.
RATES = (200, 500)
#: Concurrency of sleeping handlers.
SLEEPERS = 100

SHORT = Scale(seconds=0.5, steady=1.0, watch=4.0, part=0.7)
LONG = Scale(seconds=1.5, steady=5.0, watch=20.0, full=True, repeats=5)


def _publish(contender: Contender, server: Server, scale: Scale) -> Found:
    found = publish(contender, server, scale.seconds)
    return {"publish.one": found.one, "publish.many": found.many, "publish.batch": found.batch}


def _drain(contender: Contender, server: Server, scale: Scale) -> Found:
    found = drain(contender, server, share(contender.backlog, scale))
    return {
        "drain": found.rate,
        "drain.cpu": found.cpu * 1e6,
        "drain.redis_cpu": found.redis_cpu * 1e6,
        "drain.memory": found.memory / 1e6,
        "drain.first": found.first * 1e3,
    }


def _sleep(contender: Contender, server: Server, scale: Scale) -> Found:
    count = share(min(contender.backlog, BACKLOG // 5), scale)
    return {"sleep": drain(contender, server, count, handling="sleep", concurrency=SLEEPERS).rate}


def _latency(contender: Contender, server: Server, scale: Scale) -> Found:
    found = latency(contender, server, RATE, scale.steady)
    return {"latency.p50": found.p50 * 1e6, "latency.p99": found.p99 * 1e6}


def _slow(contender: Contender, server: Server, scale: Scale) -> Found:
    values = {}
    for rate in RATES:
        found = latency(contender, server, rate, scale.steady)
        values[f"latency.{rate}.p50"] = found.p50 * 1e6
        values[f"latency.{rate}.p99"] = found.p99 * 1e6
        values[f"latency.{rate}.cpu"] = found.cpu * 1e6
    return values


def _two(contender: Contender, server: Server, scale: Scale) -> Found:
    return {"two": drain(contender, server, share(contender.backlog, scale), workers=2).rate}


def _scaling(contender: Contender, server: Server, scale: Scale) -> Found:
    count = share(BACKLOG // 5, scale)
    one, two = (drain(contender, server, count, handling="work", workers=n).rate for n in (1, 2))
    return {"scaling": two / one}


def _big(contender: Contender, server: Server, scale: Scale) -> Found:
    count = share(contender.backlog, scale) // 10
    return {
        "big.publish": publish(contender, server, scale.seconds / 2, payload="event").many,
        "big.drain": drain(contender, server, max(1_000, count), payload="event").rate,
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
        **{f"start.serve.{number}": seconds * 1e3 for number, seconds in found.serve.items()},
    }


def _cluster(contender: Contender, server: Server, scale: Scale) -> Found:
    values = {}
    for (masters, slots), found in cluster(share(BACKLOG // 4, scale), min(scale.watch, 4.0)).items():
        name = f"cluster.{masters}.{slots}"
        values[f"{name}.publish"], values[f"{name}.drain"] = found.published, found.drained
        values[f"{name}.cpu"], values[f"{name}.emit"] = found.cpu * 1e6, found.emitted
        values[f"{name}.idle"], values[f"{name}.connections"] = found.idle * 100, found.connections
    return values


MEASUREMENTS = (
    Measurement(
        "publish",
        (
            per_second("publish.one", "publish, one after the other"),
            per_second("publish.many", "publish, many callers at once"),
            per_second("publish.batch", "publish, batches of 500"),
        ),
        _publish,
        excluded=("faststream-batch",),
    ),
    Measurement(
        "drain",
        (
            per_second("drain", "drain a backlog"),
            Metric("drain.cpu", "  processor time a message", "us"),
            Metric("drain.redis_cpu", "  the same of Redis", "us"),
            Metric("drain.memory", "  peak memory", "MB"),
            Metric("drain.first", "  start to first message", "ms"),
        ),
        _drain,
    ),
    Measurement(
        "sleep",
        (per_second("sleep", f"drain, handler sleeps 1 ms, {SLEEPERS} at once"),),
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
        "slow",
        tuple(
            metric
            for rate in RATES
            for metric in (
                Metric(f"latency.{rate}.p50", f"latency at {rate}/s, p50", "us"),
                Metric(f"latency.{rate}.p99", f"latency at {rate}/s, p99", "us"),
                Metric(f"latency.{rate}.cpu", "  processor time a message", "us"),
            )
        ),
        _slow,
        only=("loop", "redis", "sqlite", "bullmq", "arq", "saq", "streaq", "huey", "huey-sqlite"),
        repeats=2,
        is_long=True,
    ),
    Measurement(
        "two",
        (per_second("two", "drain, two worker processes"),),
        _two,
        excluded=("memory", "usual", "redis-asyncio", "faststream-guide", "faststream-batch"),
        repeats=1,
    ),
    Measurement(
        "big",
        (
            per_second("big.publish", "10 KB: publish, many callers"),
            per_second("big.drain", "10 KB: drain"),
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
        "cluster",
        tuple(
            metric
            for masters in MASTERS
            for slots in SLOTS
            for name, about in [(f"cluster.{masters}.{slots}", f"{masters} masters, slots={slots}")]
            for metric in (
                per_second(f"{name}.publish", f"{about}: publish, batches of 500"),
                per_second(f"{name}.drain", f"{about}: drain a pattern"),
                Metric(f"{name}.cpu", "  processor time a message", "us"),
                per_second(f"{name}.emit", f"{about}: emit to another key"),
                Metric(f"{name}.idle", f"{about}: idle, processor", "%"),
                Metric(f"{name}.connections", f"{about}: connections", ""),
            )
        ),
        _cluster,
        only=("redis",),
        repeats=1,
        is_long=True,
    ),
    *GROWTH,
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
            *(
                Metric(f"start.serve.{number}", f"start: serve until {number:,} routes handled one", "ms")
                for number in ROUTES
            ),
        ),
        _startup,
        only=(REDIS.name,),
    ),
)
