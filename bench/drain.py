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

    `cpu` and `redis_cpu` are in seconds. `memory` is the peak of the workers, in bytes, and `stored` the
    memory of Redis for each waiting message. `first` is the time in seconds from the start of the process
    to its first message, or to the first of each route.
    """

    rate: float
    cpu: float
    redis_cpu: float
    memory: int
    stored: float
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
    groups: int = 1,
) -> Drained:
    """Drain `count` messages, or as many for each of several groups; measure from
    the opened gates to the last call of the handler.
    """
    with testbed_for(contender, server) as testbed:
        spec = testbed.spec(
            count=count,
            handling=handling,
            concurrency=concurrency,
            payload=payload,
            routes=routes,
            by_pattern=by_pattern,
            groups=groups,
        )
        with testbed.workers(spec, workers) as processes:
            first = time.monotonic() - processes[0].began
            before = 0 if testbed.in_memory else testbed.hold(spec, processes)
            stored = server.memory()
            cpu, redis_cpu = sum(p.cpu() for p in processes), cpu_of(server.pid)
            began = time.monotonic()
            testbed.tallies.open_gates()
            testbed.wait(lambda: testbed.tallies.total() >= before + count * groups, processes)
            took = time.monotonic() - began
            cpu, redis_cpu = sum(p.cpu() for p in processes) - cpu, cpu_of(server.pid) - redis_cpu
            memory = sum(p.peak_memory() for p in processes)
    handled = count * groups
    return Drained(handled / took, cpu / handled, redis_cpu / handled, memory, stored / count, first)
