"""Measures many routes: the cost of idle routes, and the effect of an edit of one route on the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from bench.contender import REDIS, Contender
from bench.contenders.abe import routes_file
from bench.server import Server
from bench.tally import Stamp
from bench.testbed import testbed_for

#: Number of idle routes.
ROUTES = 1_000
#: Number of routes with traffic during the edit, with the edited one, and their total rate per second.
BUSY, RATE = 11, 1_100
#: Duration of the traffic, and time of the edit, in seconds.
_TRAFFIC, _SAVE_AT = 5.0, 2.0


@dataclass(frozen=True, slots=True)
class Idle:
    """One process with 1,000 idle routes: its share of a core, its connections, its peak memory in bytes.

    `ready` is the time in seconds from its start until each route has handled a message.
    """

    cpu: float
    connections: int
    memory: int
    ready: float


@dataclass(frozen=True, slots=True)
class Reload:
    """An edit of one route among 1,000; times are in seconds.

    `live` is the time from the save to the first call of the new handler. `gap` is the longest time without a
    handled message on another route with traffic after the save, and `gap_before` the longest before it.
    """

    live: float
    gap: float
    gap_before: float


def idle(contender: Contender, server: Server, seconds: float) -> Idle:
    """Let 1,000 routes handle one message each, then measure them for `seconds` while they are idle."""
    with (
        testbed_for(contender, server) as testbed,
        testbed.workers(testbed.spec(routes=ROUTES)) as (process,),
    ):
        ready = time.monotonic() - process.began
        time.sleep(1.0)
        cpu, began = process.cpu(), time.monotonic()
        time.sleep(seconds)
        cpu = (process.cpu() - cpu) / (time.monotonic() - began)
        return Idle(cpu, server.connections(), process.peak_memory(), ready)


def reload(server: Server) -> Reload:
    """Change the handler of one of 1,000 routes while it and ten others have traffic."""
    with testbed_for(REDIS, server) as testbed:
        spec = testbed.spec(routes=ROUTES, handling="stamp")
        with testbed.workers(spec) as processes:
            traffic = testbed.spec(routes=BUSY, rate=RATE, seconds=_TRAFFIC)
            with testbed.start("pace", traffic) as publisher:
                testbed.wait(lambda: testbed.tallies.total() > ROUTES, [*processes, publisher])
                time.sleep(_SAVE_AT)
                routes_file(spec, {spec.keys[0]: "bench.handler:stamp_edited"})
                saved = time.monotonic()
                publisher.wait()
            testbed.wait(lambda: testbed.tallies.total() >= ROUTES + int(RATE * _TRAFFIC), processes)
            return _reload(list(testbed.tallies.stamps()), saved)


def _reload(stamps: list[Stamp], saved: float) -> Reload:
    live = min(stamp.handled for stamp in stamps if stamp.edited) - saved
    others = [[s.handled for s in stamps if s.key == key] for key in range(1, BUSY)]
    return Reload(
        live=live,
        gap=max(_longest_gap(t for t in times if t > saved) for times in others),
        gap_before=max(_longest_gap(t for t in times if t <= saved) for times in others),
    )


def _longest_gap(times: Iterable[float]) -> float:
    return max(after - before for before, after in pairwise(sorted(times)))
