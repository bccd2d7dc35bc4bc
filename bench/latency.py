"""How long a message takes from its sender to its handler, at a steady rate that nobody finds hard."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from bench.contender import Contender
from bench.server import Server
from bench.stage import staged

#: Messages a second.
RATE = 1_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles of the time from just before `publish` to the handler's first line, in seconds."""

    p50: float
    p99: float


def latency(contender: Contender, server: Server, seconds: float) -> Latency:
    """Send at the rate for so many seconds, from one process to another, except in memory."""
    with staged(contender, server) as stage:
        spec = stage.spec(count=1, handling="stamp", rate=RATE, seconds=seconds)
        with stage.workers(spec) as processes:
            if not stage.in_memory:
                stage.run("pace", spec)
            stage.wait(lambda: stage.tallies.total() > int(RATE * seconds), processes)
            took = [stamp.handled - stamp.sent for stamp in stage.tallies.stamps()]
    quantiles = statistics.quantiles(took, n=100)
    return Latency(quantiles[49], quantiles[98])
