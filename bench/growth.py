"""Series: what a message costs as keys, routes, groups, files and payloads grow, and what a failure costs."""

from __future__ import annotations

import math

from bench.contender import Contender
from bench.contenders.abe import MATCHED
from bench.drain import drain
from bench.measurement import Found, Measurement, Scale, per_second, share
from bench.metric import Metric
from bench.payload import SIZES
from bench.publishing import publish
from bench.server import Server
from bench.spec import Handling
from bench.testbed import testbed_for

#: Numbers of keys under one pattern, each compared with one key. The last one is measured by `--long` alone.
KEYS = (5, 100, 1_000, 10_000)
#: Numbers of routes, each compared with one route. The last one is measured by `--long` alone.
ROUTES = (10, 100, 1_000)
#: Least backlog of each route. A route that has less is mostly busy with its start: two reads and two acks.
_OF_ROUTE = 1_000
#: Numbers of groups of one key, and of keys of one group, whose memory is shown.
GROUPS, GROUP_KEYS = (1, 10, 50), (1, 1_000, 10_000)
#: When a key is looked up in the table.
TURNS = {"first": "for the first time", "again": "again"}
#: How a handler fails.
FAILURES: dict[Handling, str] = {"reject": "a `Reject`", "fail": "a failed attempt"}
#: Messages that wait while memory is measured.
_WAITING = 10_000
#: The most bytes of payloads that wait.
_BYTES = 40_000_000


def _keys(contender: Contender, server: Server, scale: Scale) -> Found:
    count = share(contender.backlog, scale)
    one = drain(contender, server, count, by_pattern=True).rate
    return {
        f"keys.{number}": drain(contender, server, count, routes=number, by_pattern=True).rate / one
        if scale.full or number != KEYS[-1]
        else math.nan
        for number in KEYS
    }


def _routes(contender: Contender, server: Server, scale: Scale) -> Found:
    count = contender.backlog  # all of it: a hundredth of a smaller backlog would only measure the start
    one, found = drain(contender, server, count), {}
    for number in ROUTES:
        size = max(count, _OF_ROUTE * number)
        many = drain(contender, server, size, routes=number) if scale.full or number != ROUTES[-1] else None
        found[f"routes.{number}.time"] = one.rate / many.rate if many else math.nan
        found[f"routes.{number}.cpu"] = many.cpu / one.cpu if many else math.nan
    return found


def _failures(contender: Contender, server: Server, scale: Scale) -> Found:
    count = share(contender.backlog // 10, scale)
    one = drain(contender, server, count).cpu
    return {f"failures.{kind}": drain(contender, server, count, handling=kind).cpu / one for kind in FAILURES}


def _payload(contender: Contender, server: Server, scale: Scale) -> Found:
    found = {}
    for kind, size in SIZES.items():
        count = max(20, share(min(contender.backlog, _BYTES // size), scale))
        found[f"payload.drain.{size}"] = drain(contender, server, count, payload=kind).rate
        found[f"payload.publish.{size}"] = (
            math.nan
            if contender.name == "floor"
            else publish(contender, server, scale.seconds / 2, payload=kind).many
        )
    return found


def _file(contender: Contender, server: Server, scale: Scale) -> Found:
    with testbed_for(contender, server) as testbed:
        return {f"file.{name}": value for name, value in testbed.run("match", testbed.spec()).items()}


def _memory(contender: Contender, server: Server, scale: Scale) -> Found:
    count, found = share(_WAITING, scale), {}
    for number in GROUPS:
        drained = drain(contender, server, count, groups=number)
        found[f"memory.groups.{number}"] = drained.memory / 1e6
    for number in GROUP_KEYS:
        drained = drain(contender, server, max(count, number), routes=number, by_pattern=True)
        found[f"memory.keys.{number}"] = drained.memory / 1e6
        found[f"memory.stored.{number}"] = drained.stored
    return found


GROWTH = (
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
        "routes",
        tuple(
            metric
            for number in ROUTES
            for metric in (
                Metric(f"routes.{number}.time", f"{number:,} routes for 1: time a message", "x"),
                Metric(f"routes.{number}.cpu", "  processor time a message", "x"),
            )
        ),
        _routes,
        only=("redis", "sqlite"),
        repeats=2,
    ),
    Measurement(
        "failures",
        tuple(
            Metric(f"failures.{kind}", f"{title} for a success: processor time", "x")
            for kind, title in FAILURES.items()
        ),
        _failures,
        only=("redis", "sqlite"),
        repeats=2,
    ),
    Measurement(
        "payload",
        tuple(
            metric
            for kind, size in SIZES.items()
            for metric in (
                per_second(f"payload.publish.{size}", f"{kind}: publish, many callers"),
                per_second(f"payload.drain.{size}", f"{kind}: drain"),
            )
        ),
        _payload,
        only=("loop", "floor", "redis", "sqlite", "memory", "bullmq"),
        repeats=1,
        is_long=True,
    ),
    Measurement(
        "file",
        tuple(
            Metric(
                f"file.{kind}.{number}.{turn}",
                f"{number:,} {kind}s in the file: find a key {TURNS[turn]}",
                "us",
            )
            for kind in ("key", "pattern")
            for number in MATCHED
            for turn in TURNS
        ),
        _file,
        only=("redis",),
        repeats=3,
    ),
    Measurement(
        "memory",
        (
            *(Metric(f"memory.groups.{n}", f"groups of one key, {n}: peak memory", "MB") for n in GROUPS),
            *(
                metric
                for n in GROUP_KEYS
                for metric in (
                    Metric(f"memory.keys.{n}", f"keys of one group, {n:,}: peak memory", "MB"),
                    Metric(f"memory.stored.{n}", "  Redis, for each waiting message", "bytes"),
                )
            ),
        ),
        _memory,
        only=("redis", "sqlite"),
        repeats=1,
        is_long=True,
    ),
)
