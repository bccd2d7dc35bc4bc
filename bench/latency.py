"""Measures the time from the publisher to the handler, at a steady rate."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.contender import Contender
from bench.server import Server
from bench.testbed import testbed_for

#: The usual rate, in messages per second.
RATE = 1_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of the time from the call of `publish` to the first line of the handler, in seconds.

    `cpu` is the processor time of the worker for each message, in seconds.
    """

    p50: float
    p99: float
    cpu: float


def latency(contender: Contender, server: Server, rate: int, seconds: float) -> Latency:
    """Publish at the rate from another process, or from the same process for memory."""
    count = int(rate * seconds)
    with testbed_for(contender, server) as testbed:
        spec = testbed.spec(count=1, handling="stamp", rate=rate, seconds=seconds)
        with testbed.workers(spec) as processes:
            cpu = sum(process.cpu() for process in processes)
            if not testbed.in_memory:
                testbed.run("pace", spec)
            testbed.wait(lambda: testbed.tallies.total() > count, processes)
            cpu = (sum(process.cpu() for process in processes) - cpu) / count
            took = [stamp.handled - stamp.sent for stamp in testbed.tallies.stamps()]
    quantiles = statistics.quantiles(took, n=100)
    return Latency(quantiles[49], quantiles[98], cpu)
