"""Measures how fast a backlog is drained, and the processor time and memory that it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.contender import Contender
from bench.payload import Kind
from bench.process import cpu_of
from bench.server import Server
from bench.spec import Handling
from bench.testbed import testbed_for


@dataclass(frozen=True, slots=True)
class Drained:
    """The result: messages per second, and for each message the processor time of the workers and of Redis.

    `cpu` and `redis_cpu` are in seconds, `memory` in bytes, and `first` is the time in seconds from the
    start of the process to its first message, or to the first of each route.
    """

    rate: float
    cpu: float
    redis_cpu: float
    memory: int
    first: float


def drain(
    contender: Contender,
    server: Server,
    count: int,
    *,
    handling: Handling = "noop",
    concurrency: int = 10,
    payload: Kind = "order",
    workers: int = 1,
    routes: int = 1,
    by_pattern: bool = False,
) -> Drained:
    """Drain `count` messages; measure from the opened gates to the last call of the handler."""
    with testbed_for(contender, server) as testbed:
        spec = testbed.spec(
            count=count,
            handling=handling,
            concurrency=concurrency,
            payload=payload,
            routes=routes,
            by_pattern=by_pattern,
        )
        with testbed.workers(spec, workers) as processes:
            first = time.monotonic() - processes[0].began
            before = 0 if testbed.in_memory else testbed.hold(spec, processes)
            cpu, redis_cpu = sum(p.cpu() for p in processes), cpu_of(server.pid)
            began = time.monotonic()
            testbed.tallies.open_gates()
            testbed.wait(lambda: testbed.tallies.total() >= before + count, processes)
            took = time.monotonic() - began
            cpu, redis_cpu = sum(p.cpu() for p in processes) - cpu, cpu_of(server.pid) - redis_cpu
            memory = sum(p.peak_memory() for p in processes)
    return Drained(count / took, cpu / count, redis_cpu / count, memory, first)
